'use strict'
// Bare ILP packets over any plug-in: N prepares sent, prepares answered by their last address segment.

const { createHash, randomBytes } = require('node:crypto')
const { createInterface } = require('node:readline')
const Ilp = require('ilp-packet')
const { emit, UsageError } = require('./cli')

const TYPE_NAMES = { 12: 'prepare', 13: 'fulfill', 14: 'reject' }

/** The flags that `exchange` understands. */
const packetFlags = {
  count: { type: 'string', integer: true, default: '0' }, // prepares to send
  destination: { type: 'string' },
  amount: { type: 'string', integer: true, default: '1' },
  concurrency: { type: 'string', integer: true, default: '1' },
  'expiry-ms': { type: 'string', integer: true, default: '30000' },
  'wait-stdin': { type: 'boolean', default: false }, // begin to send at the first line on stdin
  'wait-received': { type: 'string', integer: true }, // end after this many prepares; else SIGTERM
  address: { type: 'string', default: 'test.js' } // triggeredBy of our rejects
}

/** A prepare that a receiver here can fulfill: the preimage is the first 32 bytes of its data. */
function prepare ({ destination, amount, expiryMs }) {
  const preimage = randomBytes(32)
  return {
    preimage,
    packet: Ilp.serializeIlpPrepare({
      destination,
      amount: String(amount),
      executionCondition: sha256(preimage),
      expiresAt: new Date(Date.now() + Number(expiryMs)),
      data: preimage
    })
  }
}

/**
 * The answer to a prepare, by the last segment of its destination: `reject-F02` (any code),
 * `wrong` (a false preimage), `garbage`, `http-404` (any status, HTTP only), `slow-250`
 * (milliseconds, then fulfill), `hang` (never); anything else is fulfilled.
 */
async function answer (prepare, address) {
  const segment = prepare.destination.split('.').pop()
  const [word, value] = segment.split('-')
  const fulfill = fulfillment => Ilp.serializeIlpFulfill({ fulfillment, data: Buffer.from('from js') })
  switch (word) {
    case 'reject':
      return Ilp.serializeIlpReject({
        code: value || 'F99', triggeredBy: address, message: 'rejected on request', data: Buffer.alloc(0)
      })
    case 'wrong':
      return fulfill(Buffer.alloc(32))
    case 'garbage':
      return Buffer.from('not an ILP packet')
    case 'http':
      throw Object.assign(new Error('HTTP error on request'), { status: Number(value), expose: true })
    case 'hang':
      return new Promise(() => {})
    case 'slow':
      await new Promise(resolve => setTimeout(resolve, Number(value)))
  }
  const preimage = prepare.data.subarray(0, 32)
  if (preimage.length === 32 && sha256(preimage).equals(prepare.executionCondition)) return fulfill(preimage)
  return Ilp.serializeIlpReject({
    code: 'F99', triggeredBy: address, message: 'data does not begin with the preimage', data: Buffer.alloc(0)
  })
}

/** What an ILP packet says, for printing. */
function describe (bytes) {
  try {
    const { type, data } = Ilp.deserializeIlpPacket(bytes)
    return { type: TYPE_NAMES[type], ...snakeCase(data) }
  } catch (error) {
    return { type: 'unreadable', message: error.message, data: bytes }
  }
}

/** The same fields under the names of our events: `triggeredBy` becomes `triggered_by`. */
function snakeCase (fields) {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) =>
    [name.replace(/[A-Z]/g, letter => '_' + letter.toLowerCase()), value]))
}

/** Answers and prints what comes in; returns a function that gives the count so far. */
function receive (plugin, flags, enough) {
  let received = 0
  plugin.registerDataHandler(async bytes => {
    const prepare = Ilp.deserializeIlpPrepare(bytes)
    received += 1
    emit({ event: 'received', ...describe(bytes) })
    const reply = answer(prepare, flags.address)
    // The reply must be on its way before the process ends.
    if (received === Number(flags['wait-received'])) reply.catch(() => {}).then(() => setTimeout(enough, 100))
    return reply
  })
  return () => received
}

/**
 * Sends --count prepares and answers what comes in, over a connected plug-in whose `ready` event
 * carries `details`. Ends once all are answered and --wait-received have come, or at SIGTERM.
 */
async function exchange (plugin, flags, stopped, connect) {
  const count = Number(flags.count)
  if (count > 0 && !flags.destination) throw new UsageError('--count needs --destination')
  const listens = flags['wait-received'] !== undefined || count === 0
  const sent = { fulfilled: 0, rejected: 0, failed: 0 }
  let received = () => 0
  const enough = new Promise(resolve => { received = receive(plugin, flags, resolve) })

  emit({ event: 'ready', ready: true, ...await connect() })
  if (flags['wait-stdin']) await line(process.stdin)

  let next = 0
  const worker = async () => {
    while (next < count) await send(plugin, flags, next++, sent)
  }
  await Promise.race([stopped, Promise.all([
    listens ? enough : undefined,
    ...Array.from({ length: Math.max(1, Number(flags.concurrency)) }, worker)
  ])])
  emit({ event: 'end', ...sent, received: received() })
}

async function send (plugin, flags, number, sent) {
  const { packet, preimage } = prepare({ ...flags, expiryMs: flags['expiry-ms'] })
  try {
    const reply = describe(await plugin.sendData(packet))
    const valid = reply.type === 'fulfill' && preimage.equals(reply.fulfillment)
    if (valid) sent.fulfilled += 1
    else if (reply.type === 'reject') sent.rejected += 1
    else sent.failed += 1
    emit({ event: 'reply', number, preimage_matches: reply.type === 'fulfill' ? valid : undefined, ...reply })
  } catch (error) {
    sent.failed += 1
    emit({ event: 'reply', number, type: 'error', message: error.message })
  }
}

function line (input) {
  return new Promise(resolve => {
    const lines = createInterface({ input })
    lines.once('line', () => { lines.close(); resolve() })
    lines.once('close', resolve)
  })
}

function sha256 (bytes) {
  return createHash('sha256').update(bytes).digest()
}

module.exports = { packetFlags, prepare, answer, describe, snakeCase, exchange }
