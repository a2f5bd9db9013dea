#!/usr/bin/env node
'use strict'
// A settlement engine on ilp-settlement-core. Its ledger is a folder that engines share: a payment is a
// file in the folder of whom it is to, and stays there. It may be killed at any time; to be killed at a
// step of its own it finds the step's name in a file beside its store, and stops there.

const fs = require('node:fs')
const net = require('node:net')
const path = require('node:path')
const { once } = require('node:events')
const { randomUUID } = require('node:crypto')
const { BigNumber } = require('bignumber.js')
const { startServer } = require('ilp-settlement-core')
const { emit, run } = require('./lib/cli')

const LEDGER_SCALE = 6
const LOOK_EVERY_MS = 50

const flags = {
  connector: { type: 'string', required: true }, // where the node listens for engines
  ledger: { type: 'string', required: true }, // the folder
  name: { type: 'string', required: true }, // our address on the ledger
  store: { type: 'string', required: true }, // a file
  port: { type: 'string', integer: true, default: '0' }
}

/** Replaces a file, or leaves it as it was. */
function write (file, value) {
  const aside = `${file}.${process.pid}`
  fs.writeFileSync(aside, JSON.stringify(value))
  fs.renameSync(aside, file)
}

/** Writes a file that is there once, and never changes. */
function writeOnce (file, value) {
  const aside = `${file}.${process.pid}`
  fs.writeFileSync(aside, JSON.stringify(value))
  try {
    fs.linkSync(aside, file)
  } catch (error) {
    if (error.code !== 'EEXIST') throw error
  }
  fs.unlinkSync(aside)
}

/** The store of ilp-settlement-core in a file. Its Redis store forgets what it was about to settle. */
class Store {
  constructor (file) {
    this.file = file
    this.hold = `${file}.hold`
    this.accounts = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file)) : {}
  }

  change (id, change) {
    const account = this.accounts[id]
    if (!account) throw new Error(`no account ${id}`)
    const result = change(account)
    write(this.file, this.accounts)
    return result
  }

  /** A step is done. If somebody waits for it, nothing else is: whoever does kills us. */
  reach (step) {
    if (!fs.existsSync(this.hold) || fs.readFileSync(this.hold, 'utf8') !== step) return
    fs.renameSync(this.hold, `${this.file}.held`)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  }

  async createAccount (id) {
    const isKnown = id in this.accounts
    this.accounts[id] = this.accounts[id] || { requests: {}, queued: '0', settling: null, uncredited: '0', peer: null }
    write(this.file, this.accounts)
    this.reach('opened')
    return isKnown
  }

  async isExistingAccount (id) {
    return id in this.accounts
  }

  async deleteAccount (id) {
    delete this.accounts[id]
    write(this.file, this.accounts)
    this.reach('closed')
  }

  async queueSettlement (id, key, amount) {
    const known = this.change(id, account => {
      if (!(key in account.requests)) {
        account.requests[key] = amount.toString()
        account.queued = amount.plus(account.queued).toString()
      }
      return new BigNumber(account.requests[key])
    })
    this.reach('queued')
    return known
  }

  async loadAmountToSettle (id) {
    const amount = this.change(id, account => {
      // Otherwise the one that was cut off, under its number.
      if (!account.settling && new BigNumber(account.queued).isGreaterThan(0)) {
        account.settling = { id: randomUUID(), amount: account.queued }
        account.queued = '0'
      }
      return new BigNumber(account.settling ? account.settling.amount : 0)
    })
    this.reach('numbered')
    return amount
  }

  async saveAmountToSettle (id, amount) {
    this.change(id, account => { account.queued = amount.plus(account.queued).toString() })
  }

  async loadAmountToCredit (id) {
    return this.change(id, account => {
      const amount = new BigNumber(account.uncredited)
      account.uncredited = '0'
      return amount
    })
  }

  async saveAmountToCredit (id, amount) {
    emit({ event: 'uncredited', amount: amount.toString() })
    this.change(id, account => { account.uncredited = amount.plus(account.uncredited).toString() })
  }
}

run(flags, async (flags, stopped) => {
  const store = new Store(flags.store)
  const inbox = path.join(flags.ledger, flags.name)
  fs.mkdirSync(inbox, { recursive: true })

  let services
  const engine = {
    async setupAccount (id) {
      // Told each time: the other side may know the address of another engine.
      const answer = await services.sendMessage(id, { address: flags.name })
      store.change(id, account => { account.peer = answer.address })
      store.reach('introduced')
    },

    async handleMessage (id, message) {
      store.change(id, account => { account.peer = message.address })
      store.reach('met')
      return { address: flags.name }
    },

    async settle (id, amount) {
      const { settling, peer } = store.accounts[id]
      if (!settling) return amount // another call made it
      if (!peer) throw new Error('the peer is not known yet')
      const paid = new BigNumber(settling.amount).decimalPlaces(LEDGER_SCALE, BigNumber.ROUND_DOWN)
      if (!paid.isZero()) {
        const folder = path.join(flags.ledger, peer)
        fs.mkdirSync(folder, { recursive: true })
        writeOnce(path.join(folder, `${settling.id}.json`), { from: flags.name, amount: paid.toString() })
      }
      store.reach('paid')
      store.change(id, account => {
        account.queued = new BigNumber(settling.amount).minus(paid).plus(account.queued).toString()
        account.settling = null
      })
      store.reach('settled')
      return amount
    }
  }

  const look = async () => {
    const files = new Set(fs.readdirSync(inbox))
    for (const file of files) {
      const noted = `${file}.noted`
      if (!file.endsWith('.json') || files.has(noted)) continue
      const payment = JSON.parse(fs.readFileSync(path.join(inbox, file)))
      // The newest: a node that dies just after it deleted an account does not say that it is gone.
      const known = Object.keys(store.accounts).filter(id => store.accounts[id].peer === payment.from).pop()
      if (!known) continue
      store.reach('seen')
      await services.creditSettlement(known, new BigNumber(payment.amount), path.basename(file, '.json'))
      store.reach('credited')
      fs.writeFileSync(path.join(inbox, noted), '')
      store.reach('noted')
    }
  }

  let port = Number(flags.port)
  if (port === 0) {
    // ilp-settlement-core takes a number and does not tell which one it got.
    const probe = net.createServer().listen(0, '127.0.0.1')
    await once(probe, 'listening')
    port = probe.address().port
    probe.close()
    await once(probe, 'close')
  }
  const server = await startServer(async given => { services = given; return engine }, store, { connectorUrl: flags.connector, port })
  emit({ event: 'ready', ready: true, port })

  // What was cut off, and what comes in, until we are told to stop.
  for (;;) {
    for (const id of Object.keys(store.accounts)) {
      const { queued, settling } = store.accounts[id]
      if (settling || new BigNumber(queued).isGreaterThanOrEqualTo(`1e-${LEDGER_SCALE}`)) await services.trySettlement(id)
    }
    await look()
    const ended = await Promise.race([stopped.then(() => true), new Promise(resolve => setTimeout(resolve, LOOK_EVERY_MS))])
    if (ended) break
  }
  emit({ event: 'end' })
  server.shutdown()
})
