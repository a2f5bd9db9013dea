#!/usr/bin/env node
'use strict'
// A settlement engine on ilp-settlement-core. Its ledger is a folder that two engines share: a payment
// is a file in the folder of whom it is to. It may be killed at any time.

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

/** The store of ilp-settlement-core in a file. Its Redis store forgets what it was about to settle. */
class Store {
  constructor (file) {
    this.file = file
    this.accounts = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file)) : {}
  }

  change (id, change) {
    const account = this.accounts[id]
    if (!account) throw new Error(`no account ${id}`)
    const result = change(account)
    write(this.file, this.accounts)
    return result
  }

  async createAccount (id) {
    const isKnown = id in this.accounts
    this.accounts[id] = this.accounts[id] || { requests: {}, queued: '0', settling: null, uncredited: '0', peer: null }
    write(this.file, this.accounts)
    return isKnown
  }

  async isExistingAccount (id) {
    return id in this.accounts
  }

  async deleteAccount (id) {
    delete this.accounts[id]
    write(this.file, this.accounts)
  }

  async queueSettlement (id, key, amount) {
    return this.change(id, account => {
      if (!(key in account.requests)) {
        account.requests[key] = amount.toString()
        account.queued = amount.plus(account.queued).toString()
      }
      return new BigNumber(account.requests[key])
    })
  }

  async loadAmountToSettle (id) {
    return this.change(id, account => {
      // Otherwise the one that was cut off, under its number.
      if (!account.settling && new BigNumber(account.queued).isGreaterThan(0)) {
        account.settling = { id: randomUUID(), amount: account.queued }
        account.queued = '0'
      }
      return new BigNumber(account.settling ? account.settling.amount : 0)
    })
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
      if (store.accounts[id].peer) return
      const answer = await services.sendMessage(id, { address: flags.name })
      store.change(id, account => { account.peer = answer.address })
    },

    async handleMessage (id, message) {
      store.change(id, account => { account.peer = message.address })
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
        // Twice the same file is one payment.
        const file = path.join(folder, `${settling.id}.json`)
        if (!fs.existsSync(`${file}.done`)) write(file, { from: flags.name, amount: paid.toString() })
      }
      store.change(id, account => {
        account.queued = new BigNumber(settling.amount).minus(paid).plus(account.queued).toString()
        account.settling = null
      })
      return amount
    }
  }

  const look = async () => {
    for (const file of fs.readdirSync(inbox).filter(name => name.endsWith('.json'))) {
      const payment = JSON.parse(fs.readFileSync(path.join(inbox, file)))
      const known = Object.entries(store.accounts).find(([, account]) => account.peer === payment.from)
      if (!known) continue
      await services.creditSettlement(known[0], new BigNumber(payment.amount), path.basename(file, '.json'))
      fs.renameSync(path.join(inbox, file), path.join(inbox, `${file}.done`))
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
