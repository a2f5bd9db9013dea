#!/usr/bin/env node
'use strict'
// A STREAM sender behind BTP: pays a fixed source amount and says what became of it.

const { createConnection } = require('ilp-protocol-stream')
const { emit, run, UsageError } = require('./lib/cli')
const { btpFlags, plugin } = require('./lib/btp')
const spsp = require('./lib/spsp')

const flags = {
  ...btpFlags,
  amount: { type: 'string', integer: true, required: true }, // in the source account's minor unit
  spsp: { type: 'string' }, // an SPSP URL, or both of:
  destination: { type: 'string' },
  secret: { type: 'string' }, // base64
  slippage: { type: 'string', default: '0.01' },
  'packet-max': { type: 'string', integer: true }, // largest source amount of one packet
  stay: { type: 'boolean', default: false } // leave the connection open until SIGTERM
}

run(flags, async (flags, stopped) => {
  const credentials = await receiver(flags)
  const connection = await createConnection({
    plugin: plugin(flags),
    ...credentials,
    slippage: Number(flags.slippage),
    maximumPacketAmount: flags['packet-max']
  })
  emit({ event: 'ready', ready: true, source_account: connection.sourceAccount })

  const stream = connection.createStream()
  let packets = 0
  stream.on('outgoing_money', () => { packets += 1 })
  let failure
  connection.on('error', error => { failure = error })
  stream.on('error', error => { failure = failure || error })
  const started = Date.now()
  try {
    await stream.sendTotal(flags.amount, { timeout: Number(flags.timeout) * 1000 })
    if (!flags.stay) await connection.end()
  } catch (error) {
    // The stream only says that it was closed; the connection knows why.
    failure = failure || error
  }
  emit({
    event: 'end',
    ok: !failure,
    sent: connection.totalSent,
    delivered: connection.totalDelivered,
    packets,
    elapsed_ms: Date.now() - started,
    source_account: connection.sourceAccount,
    source_asset: { code: connection.sourceAssetCode, scale: connection.sourceAssetScale },
    destination_account: connection.destinationAccount,
    destination_asset: { code: connection.destinationAssetCode, scale: connection.destinationAssetScale },
    receipt: stream.receipt
  })
  if (failure) throw failure
  if (flags.stay) await stopped
})

async function receiver (flags) {
  if (flags.spsp !== undefined) return spsp.query(flags.spsp)
  if (!flags.destination || !flags.secret) throw new UsageError('give --spsp, or --destination and --secret')
  return { destinationAccount: flags.destination, sharedSecret: Buffer.from(flags.secret, 'base64') }
}
