#!/usr/bin/env node
'use strict'
// A peer over ilp-plugin-btp, client or server: the same exchange as http-peer.js.

const { run } = require('./lib/cli')
const { btpFlags, plugin } = require('./lib/btp')
const { packetFlags, exchange } = require('./lib/packets')

run({ ...btpFlags, ...packetFlags }, async (flags, stopped) => {
  const peer = plugin(flags)
  await exchange(peer, flags, stopped, () => peer.connect())
})
