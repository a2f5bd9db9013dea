#!/usr/bin/env node
'use strict'
// One odd BTP conversation, chosen by --case, over a bare WebSocket. Prints every frame that comes
// back and how each socket ended; judging is the caller's. The request that asks for an ILP answer
// is ILDCP (`peer.config`, amount 0) unless --destination names another receiver.

const BtpPacket = require('btp-packet')
const WebSocket = require('ws')
const { emit, run, UsageError } = require('./lib/cli')
const { prepare, answer, describe, snakeCase } = require('./lib/packets')
const { serializeIldcpRequest } = require('ilp-protocol-ildcp')
const { deserializeIlpPrepare } = require('ilp-packet')

const { MIME_APPLICATION_OCTET_STREAM: BYTES, MIME_TEXT_PLAIN_UTF8: TEXT } = BtpPacket
const TYPE_NAMES = { 1: 'response', 2: 'error', 6: 'message', 7: 'transfer' }

const entry = (protocolName, data, contentType = BYTES) => ({ protocolName, contentType, data: Buffer.from(data) })
const message = (id, ...entries) => BtpPacket.serializeMessage(id, entries)
const response = (id, ...entries) => BtpPacket.serializeResponse(id, entries)

const flags = {
  btp: { type: 'string', required: true },
  case: { type: 'string', required: true },
  destination: { type: 'string' },
  amount: { type: 'string', integer: true, default: '1' },
  bytes: { type: 'string', integer: true, default: '1048576' }, // length of the `oversized` frame
  'quiet-ms': { type: 'string', integer: true, default: '500' } // silence that ends the case
}

/** Each case gets `open` (a new socket, see `socket`) and what follows from the flags. */
const cases = {
  // Authentication.
  auth: async ({ open, auth }) => (await open('a')).send(auth(1)),
  'auth-wrong-token': async ({ open, auth }) => (await open('a')).send(auth(1, { token: 'not the token' })),
  'auth-no-token': async ({ open }) => (await open('a')).send(message(1, entry('auth', ''))),
  'auth-not-first': async ({ open, token }) =>
    (await open('a')).send(message(1, entry('auth_token', token, TEXT), entry('auth', ''))),
  'auth-duplicate-name': async ({ open, token }) =>
    (await open('a')).send(message(1, entry('auth', ''), entry('auth_token', token, TEXT), entry('auth_token', token, TEXT))),
  'auth-missing': async ({ open, ilp }) => (await open('a')).send(message(1, ilp())),
  // Sends nothing: give --quiet-ms more than the node's time limit.
  'auth-late': async ({ open }) => { await open('a') },
  'auth-twice': async ({ open, auth, ilp }) => {
    const a = await authenticated(open, auth)
    a.send(auth(2))
    a.send(message(3, ilp()))
  },
  // The old Rust client does not wait for the answer to its auth.
  'auth-pipelined': async ({ open, auth, ilp }) => {
    const a = await open('a')
    a.send(auth(1))
    a.send(message(2, ilp()))
  },
  'ping-before-auth': async ({ open }) => (await open('a')).ping(),
  // A second socket for the same account: which one goes on answering?
  redundant: async ({ open, auth, ilp }) => {
    const a = await authenticated(open, auth, 'a')
    const b = await authenticated(open, auth, 'b')
    a.send(message(2, ilp()))
    b.send(message(2, ilp()))
  },

  // Frames on an authenticated socket.
  ilp: after(({ ilp }) => [message(2, ilp())]),
  'ilp-with-secondary': after(({ ilp }) => [message(2, ilp(), entry('note', 'hello', TEXT))]),
  'ilp-not-primary': after(({ ilp }) => [message(2, entry('note', 'hello', TEXT), ilp())]),
  'duplicate-names': after(({ ilp }) => { const one = ilp(); return [message(2, one, one)] }),
  'unsupported-primary': after(() => [message(2, entry('unheard_of', 'x'))]),
  'empty-message': after(() => [message(2)]),
  'many-entries': after(({ ilp }) => [message(2, ilp(), ...Array.from({ length: 299 }, (_, i) => entry(`n${i}`, '')))]),
  transfer: after(() => [BtpPacket.serializeTransfer({ amount: '10' }, 2, [])]),
  'unknown-response': after(({ ilp }) => [response(77), message(2, ilp())]),
  'unknown-type': after(({ ilp }) => [Buffer.from('03000000020100', 'hex'), message(3, ilp())]),
  'hostile-count': after(({ ilp }) => [Buffer.from('060000000209088000000000000000', 'hex'), message(3, ilp())]),
  truncated: after(({ ilp }) => [message(2, ilp()).subarray(0, 20), message(3, ilp())]),
  'not-ilp': after(() => [message(2, entry('ilp', 'not an ILP packet'))]),
  'text-frame': after(({ ilp }) => ['hello', message(2, ilp())]),
  oversized: after(({ bytes }) => [message(2, entry('ilp', Buffer.alloc(bytes)))]),

  // The types of interledger-rs since 2020: Prepare in a Response, the answer in a Message.
  // Stays to answer prepares the same way until nothing comes for --quiet-ms.
  inverted: after(({ ilp }) => [response(2, ilp())], 'inverted')
}

/** A case that authenticates and then sends what `frames` gives. */
function after (frames, style) {
  return async context => {
    const a = await authenticated(context.open, context.auth, 'a', style)
    for (const frame of frames(context)) a.send(frame)
  }
}

async function authenticated (open, auth, name = 'a', style) {
  const socket = await open(name, style)
  const answered = socket.next()
  socket.send(auth(1))
  await answered
  return socket
}

run(flags, async (flags, stopped) => {
  const chosen = cases[flags.case]
  if (!chosen) throw new UsageError(`unknown --case ${flags.case}; known: ${Object.keys(cases).join(', ')}`)
  if (!/^btp\+wss?:/.test(flags.btp)) throw new UsageError('--btp must begin with btp+ws:// or btp+wss://')
  const url = new URL(flags.btp.slice('btp+'.length))
  const username = decodeURIComponent(url.username)
  const token = decodeURIComponent(url.password)
  url.username = url.password = ''

  const sockets = []
  const silence = quiet(Number(flags['quiet-ms']))
  const open = async (name, style) => {
    const opened = await socket(url.href, name, style, silence)
    sockets.push(opened)
    return opened
  }
  const auth = (id, { token: shown = token } = {}) => message(id, ...[
    entry('auth', ''),
    ...(username ? [entry('auth_username', username, TEXT)] : []),
    entry('auth_token', shown, TEXT)
  ])
  const ilp = () => entry('ilp', flags.destination
    ? prepare({ destination: flags.destination, amount: flags.amount, expiryMs: 30000 }).packet
    : serializeIldcpRequest({ expiresAt: new Date(Date.now() + 30000) }))

  emit({ event: 'ready', ready: true, case: flags.case })
  silence.restart()
  await chosen({ open, auth, ilp, token, bytes: Number(flags.bytes) })
  await Promise.race([stopped, silence.over, allClosed(sockets)])
  emit({ event: 'end', open: sockets.filter(one => one.isOpen()).map(one => one.name) })
})

/** Resolves `over` once `restart` has not been called for some milliseconds. */
function quiet (milliseconds) {
  let timer
  let resolve
  const over = new Promise(_resolve => { resolve = _resolve })
  const restart = () => {
    clearTimeout(timer)
    timer = setTimeout(resolve, milliseconds)
  }
  return { over, restart }
}

async function allClosed (sockets) {
  await Promise.all(sockets.map(one => one.closed))
}

/** Opens a WebSocket that prints all it gets, and answers prepares. */
async function socket (url, name, style, silence) {
  const ws = new WebSocket(url, { perMessageDeflate: false })
  const started = Date.now()
  let waiting = []
  const closed = new Promise(resolve => ws.on('close', code => {
    emit({ event: 'close', socket: name, code, elapsed_ms: Date.now() - started })
    waiting.forEach(wake => wake())
    resolve()
  }))
  ws.on('error', error => emit({ event: 'socket_error', socket: name, message: error.message }))
  ws.on('pong', () => emit({ event: 'pong', socket: name }))
  ws.on('message', async bytes => {
    silence.restart()
    const frame = read(bytes)
    emit({ event: 'frame', socket: name, ...frame })
    waiting.forEach(wake => wake())
    waiting = []
    if (frame.ilp && frame.ilp.type === 'prepare') {
      const ilp = frame.protocol_data.find(one => one.name === 'ilp')
      const reply = entry('ilp', await answer(deserializeIlpPrepare(ilp.data), 'test.js'))
      ws.send((style === 'inverted' ? message : response)(frame.request_id, reply))
    }
  })
  await new Promise((resolve, reject) => {
    ws.once('open', resolve)
    ws.once('error', reject)
  })
  return {
    name,
    closed,
    isOpen: () => ws.readyState === WebSocket.OPEN,
    // A node that has closed on us already is an outcome, not a failure.
    send: data => ws.send(data, () => {}),
    ping: () => ws.ping(),
    /** Resolves at the next frame, or when the socket closes. */
    next: () => new Promise(resolve => waiting.push(resolve))
  }
}

/** A BTP packet as an event: names instead of numbers, and the ILP packet it carries. */
function read (bytes) {
  if (typeof bytes === 'string') return { type: 'text', text: bytes }
  let packet
  try {
    packet = BtpPacket.deserialize(bytes)
  } catch (error) {
    return { type: 'unreadable', message: error.message, data: bytes }
  }
  const { protocolData, ...fields } = packet.data
  const ilp = protocolData.find(one => one.protocolName === 'ilp')
  return {
    type: TYPE_NAMES[packet.type],
    request_id: packet.requestId,
    ...snakeCase(fields),
    protocol_data: protocolData.map(one => ({ name: one.protocolName, content_type: one.contentType, data: one.data })),
    ilp: ilp && describe(ilp.data)
  }
}
