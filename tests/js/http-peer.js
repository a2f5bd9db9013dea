#!/usr/bin/env node
'use strict'
// A peer over ilp-plugin-http: listens for prepares and sends its own.

const { once } = require('node:events')
const PluginHttp = require('ilp-plugin-http')
const { run } = require('./lib/cli')
const { packetFlags, exchange } = require('./lib/packets')

const flags = {
  ...packetFlags,
  url: { type: 'string', default: 'http://127.0.0.1:1/' }, // where our prepares go
  token: { type: 'string', default: 'secret' }, // the bearer token we show
  'listen-port': { type: 'string', integer: true, default: '0' },
  'listen-token': { type: 'string', default: 'secret' }, // the bearer token we demand
  name: { type: 'string', default: 'js' }, // ILP-Peer-Name
  http2: { type: 'boolean', default: false } // h2c by prior knowledge, outgoing only
}

run(flags, async (flags, stopped) => {
  const plugin = new PluginHttp({
    incoming: {
      // The plug-in hands this to `server.listen`; a bare number would bind every interface.
      port: { host: '127.0.0.1', port: Number(flags['listen-port']) },
      staticToken: flags['listen-token']
    },
    outgoing: { url: flags.url, staticToken: flags.token, name: flags.name, http2: flags.http2 }
  })
  await exchange(plugin, flags, stopped, async () => {
    await plugin.connect()
    plugin._app.silent = true // else Koa prints the errors we make on request
    const server = plugin._httpServer // private, but the only way to learn the port
    if (!server.listening) await once(server, 'listening')
    return { listen_url: `http://127.0.0.1:${server.address().port}/` }
  })
})
