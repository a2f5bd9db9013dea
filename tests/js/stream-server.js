#!/usr/bin/env node
'use strict'
// A STREAM receiver behind BTP, with an SPSP endpoint if asked. Its address comes by ILDCP.

const { createServer } = require('ilp-protocol-stream')
const { emit, run } = require('./lib/cli')
const { btpFlags, plugin } = require('./lib/btp')
const spsp = require('./lib/spsp')

const RECEIVE_MAX = '18446744073709551615'

const flags = {
  ...btpFlags,
  'spsp-port': { type: 'string', integer: true } // serve SPSP here, 0 for any free port
}

run(flags, async (flags, stopped) => {
  let total = 0n
  let packets = 0
  const server = await createServer({ plugin: plugin(flags) })
  server.on('connection', connection => {
    emit({ event: 'connection' })
    connection.on('error', error => emit({ event: 'connection_error', message: error.message }))
    connection.on('close', () => emit({
      event: 'connection_close',
      received: connection.totalReceived,
      peer_asset_code: connection.destinationAssetCode,
      peer_asset_scale: connection.destinationAssetScale
    }))
    connection.on('stream', stream => {
      stream.setReceiveMax(RECEIVE_MAX)
      stream.on('error', error => emit({ event: 'stream_error', message: error.message }))
      stream.on('data', data => emit({ event: 'data', data }))
      stream.on('money', amount => {
        total += BigInt(amount)
        packets += 1
        emit({ event: 'money', amount, total: total.toString() })
      })
    })
  })

  const { destinationAccount, sharedSecret } = server.generateAddressAndSecret()
  const spspPort = flags['spsp-port']
  emit({
    event: 'ready',
    ready: true,
    destination_account: destinationAccount,
    shared_secret: sharedSecret.toString('base64'),
    asset_code: server.assetCode,
    asset_scale: server.assetScale,
    spsp_url: spspPort === undefined ? undefined : await spsp.serve(server, Number(spspPort))
  })

  await stopped
  emit({ event: 'end', total: total.toString(), packets })
})
