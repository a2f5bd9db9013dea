'use strict'
// The programs tried against each other, with a small JavaScript connector in the middle.

const assert = require('node:assert/strict')
const { once } = require('node:events')
const http2 = require('node:http2')
const { test } = require('node:test')
const { deserializeIlpPrepare } = require('ilp-packet')
const { answer } = require('../lib/packets')
const { Hub } = require('./hub')
const { Program } = require('./program')

const USD = { code: 'USD', scale: 9, value: 9n }
const EUR = { code: 'EUR', scale: 6, value: 10n }

/** A hub with alice (the payer) and bob behind a STREAM server that has dialled in. */
async function payerAndReceiver (t, alice = USD) {
  const hub = new Hub()
  t.after(() => hub.close())
  const aliceUrl = await hub.btpServer('alice', alice)
  const bobUrl = await hub.btpServer('bob', EUR)
  const server = new Program('stream-server.js', { btp: bobUrl, 'spsp-port': 0 })
  t.after(() => server.stop())
  return { hub, aliceUrl, server, ready: await server.event('ready') }
}

test('a payment by address and secret arrives at the rate', async t => {
  const { aliceUrl, server, ready } = await payerAndReceiver(t)
  assert.equal(ready.ready, true)
  assert.match(ready.destination_account, /^test\.hub\.bob\./)

  const client = new Program('stream-client.js', {
    btp: aliceUrl, destination: ready.destination_account, secret: ready.shared_secret, amount: 1000000
  })
  const end = await client.event('end')
  assert.equal(await client.ended(), 0, client.stderr)
  assert.equal(client.stderr, '')
  assert.equal(end.sent, '1000000')
  assert.equal(end.delivered, '900000')
  assert.deepEqual(end.source_asset, { code: 'USD', scale: 9 })
  assert.deepEqual(end.destination_asset, { code: 'EUR', scale: 6 })

  assert.equal(await server.stop(), 0)
  assert.equal(server.stderr, '')
  assert.equal((await server.event('end')).total, '900000')
})

test('a payment by SPSP goes in packets no larger than the path takes', async t => {
  const { aliceUrl, server, ready } = await payerAndReceiver(t, { ...USD, packetMax: 1000n })
  const client = new Program('stream-client.js', { btp: aliceUrl, spsp: ready.spsp_url, amount: 10000 })
  const end = await client.event('end')
  assert.equal(await client.ended(), 0, client.stderr)
  assert.equal(end.delivered, '9000')
  assert.equal(end.packets, 10)
  await server.event('connection_close')
  const money = server.all('money')
  assert.equal(money.length, 10)
  assert.equal(money.at(-1).total, '9000')
})

test('SPSP answers as the specification says, with receipts if asked', async t => {
  const { ready } = await payerAndReceiver(t)
  const plain = await fetch(ready.spsp_url)
  assert.equal(plain.headers.get('content-type'), 'application/spsp4+json')
  const first = await plain.json()
  const second = await (await fetch(ready.spsp_url)).json()
  assert.notEqual(first.shared_secret, second.shared_secret)
  assert.equal(first.receipts_enabled, false)

  const receipts = await fetch(ready.spsp_url, {
    headers: { 'Receipt-Nonce': Buffer.alloc(16).toString('base64'), 'Receipt-Secret': Buffer.alloc(32).toString('base64') }
  })
  assert.equal((await receipts.json()).receipts_enabled, true)
  const half = await fetch(ready.spsp_url, {
    headers: { 'Receipt-Nonce': Buffer.alloc(3).toString('base64'), 'Receipt-Secret': Buffer.alloc(32).toString('base64') }
  })
  assert.equal(half.status, 400)
})

test('a payment that cannot be made fails, and says how much went', async t => {
  const { aliceUrl, ready } = await payerAndReceiver(t)
  const client = new Program('stream-client.js', {
    btp: aliceUrl, destination: 'test.hub.nobody', secret: ready.shared_secret, amount: 10
  })
  assert.equal(await client.ended(), 1)
  assert.match(client.stderr, /^error: /)
})

test('a STREAM server that is dialled gives its URL first', async t => {
  const hub = new Hub()
  t.after(() => hub.close())
  const server = new Program('stream-server.js', { 'btp-listen': 0, 'btp-token': 'abc' })
  t.after(() => server.stop())
  const { btp_url: url } = await server.event('listening')
  await hub.btpClient('bob', EUR, url)
  assert.match((await server.event('ready')).destination_account, /^test\.hub\.bob\./)
})

test('packets over HTTP, every kind of answer', async t => {
  const receiver = new Program('http-peer.js', { 'wait-received': 6, address: 'test.js' })
  t.after(() => receiver.stop())
  const { listen_url: url } = await receiver.event('ready')
  const send = async segment => {
    const sender = new Program('http-peer.js', { url, count: 1, destination: `test.js.${segment}` })
    assert.equal(await sender.ended(), 0, sender.stderr)
    return sender.event('reply')
  }
  assert.equal((await send('ok')).preimage_matches, true)
  assert.equal((await send('wrong')).preimage_matches, false)
  const rejected = await send('reject-T04')
  assert.deepEqual([rejected.type, rejected.code, rejected.triggered_by], ['reject', 'T04', 'test.js'])
  assert.equal((await send('garbage')).type, 'unreadable')
  assert.match((await send('http-404')).message, /404/)
  assert.equal((await send('slow-20')).preimage_matches, true)
  assert.equal(await receiver.ended(), 0)
  assert.equal((await receiver.event('end')).received, 6)
})

test('packets over cleartext HTTP/2', async t => {
  const server = http2.createServer()
  t.after(() => server.close())
  let headers
  server.on('stream', async (stream, seen) => {
    headers = seen
    const chunks = []
    for await (const chunk of stream) chunks.push(chunk)
    stream.respond({ ':status': 200, 'content-type': 'application/octet-stream' })
    stream.end(await answer(deserializeIlpPrepare(Buffer.concat(chunks)), 'test.js'))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const sender = new Program('http-peer.js', {
    url: `http://127.0.0.1:${server.address().port}/ilp`, count: 3, concurrency: 3, destination: 'test.js.x', http2: true
  })
  assert.equal((await sender.event('end')).fulfilled, 3, JSON.stringify(sender.events))
  // What Rialto must cope with, as the README tells.
  assert.equal(headers.authorization, 'Bearer secret')
  assert.equal(headers['content-type'], 'application/ilp+octet-stream')
  assert.equal(headers['content-length'], undefined)
})

test('HTTP and BTP peers exchange packets both ways through the hub', async t => {
  const hub = new Hub()
  t.after(() => hub.close())
  const web = new Program('http-peer.js', { 'wait-received': 1, address: 'test.hub.web' })
  t.after(() => web.stop())
  const url = await hub.http('web', USD, (await web.event('ready')).listen_url)
  const socketUrl = await hub.btpServer('socket', USD)

  const socket = new Program('btp-peer.js', {
    btp: socketUrl, count: 1, amount: 7, destination: 'test.hub.web.x', 'wait-received': 3, 'wait-stdin': true
  })
  await socket.event('ready')
  socket.child.stdin.write('go\n')
  assert.equal((await socket.event('reply')).preimage_matches, true)
  assert.equal((await web.event('received')).amount, '7')
  assert.equal(await web.ended(), 0)

  const sender = new Program('http-peer.js', { url, count: 3, concurrency: 2, destination: 'test.hub.socket.x' })
  assert.equal(await sender.ended(), 0)
  assert.equal((await sender.event('end')).fulfilled, 3)
  assert.equal(await socket.ended(), 0)
})

// ilp-plugin-btp checks less than Rialto does: what matters here is that each case runs and ends.
test('raw BTP cases', async t => {
  const raw = async (name, flags = {}) => {
    const hub = new Hub()
    t.after(() => hub.close())
    const btp = await hub.btpServer('raw', USD)
    const program = new Program('btp-raw.js', { btp, case: name, 'quiet-ms': 200, ...flags })
    assert.equal(await program.ended(), 0, program.stderr)
    return program
  }
  const frames = program => program.all('frame').map(one => one.ilp?.type || one.code || one.type)

  assert.deepEqual(frames(await raw('auth')), ['response'])
  assert.deepEqual(frames(await raw('auth-pipelined')), ['response', 'fulfill'])
  assert.deepEqual(frames(await raw('ilp')), ['response', 'fulfill'])
  assert.deepEqual(frames(await raw('many-entries')), ['response', 'fulfill'])
  assert.deepEqual(frames(await raw('auth-late')), [])
  assert.equal((await raw('ping-before-auth')).all('pong').length, 1)

  const wrong = await raw('auth-wrong-token')
  assert.deepEqual(frames(wrong), ['F00'])
  assert.equal(wrong.all('close').length, 1)

  const unknown = new Program('btp-raw.js', { btp: 'btp+ws://127.0.0.1:1', case: 'nonsense' })
  assert.equal(await unknown.ended(), 2)
  assert.match(unknown.stderr, /known: auth, /)
})

test('flags are checked, and a peer that is not there ends the program', async () => {
  assert.equal(await new Program('stream-client.js', { btp: 'btp+ws://127.0.0.1:1' }).ended(), 2)
  assert.equal(await new Program('http-peer.js', { count: 'x' }).ended(), 2)
  const lonely = new Program('stream-server.js', { btp: 'btp+ws://:t@127.0.0.1:1', timeout: 1 })
  assert.equal(await lonely.ended(), 1)
  assert.match(lonely.stderr, /timed out after 1 s/)
})
