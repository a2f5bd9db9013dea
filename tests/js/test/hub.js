'use strict'
// A connector of few lines: accounts over ilp-plugin-btp and ilp-plugin-http, each at its own segment
// below the hub's address, fixed rates, ILDCP. It takes Rialto's place, so that the programs can be
// tried alone.

const http = require('node:http')
const { once } = require('node:events')
const Ilp = require('ilp-packet')
const Ildcp = require('ilp-protocol-ildcp')
const PluginBtp = require('ilp-plugin-btp')
const PluginHttp = require('ilp-plugin-http')

const ADDRESS = 'test.hub'
const EXPIRY_MARGIN_MS = 1000

class Hub {
  accounts = new Map()

  /** An account that dials us over BTP; resolves to the URL it must use. */
  async btpServer (name, asset) {
    const server = http.createServer()
    const plugin = new PluginBtp({
      listener: { port: { host: '127.0.0.1', port: 0 }, secret: 'secret', wsOpts: { server } }
    })
    this.add(name, asset, plugin)
    // Resolves only once the client is there.
    plugin.connect().catch(() => {})
    await once(server, 'listening')
    return `btp+ws://:secret@127.0.0.1:${server.address().port}/accounts/${name}/ilp/btp`
  }

  /** An account that we dial over BTP. */
  async btpClient (name, asset, url) {
    const plugin = new PluginBtp({ server: url })
    this.add(name, asset, plugin)
    await plugin.connect()
  }

  /** An account over HTTP; resolves to the URL it must post to. */
  async http (name, asset, url) {
    const plugin = new PluginHttp({
      incoming: { port: { host: '127.0.0.1', port: 0 }, staticToken: 'secret' },
      outgoing: { url, staticToken: 'secret', name: 'hub' }
    })
    this.add(name, asset, plugin)
    await plugin.connect()
    plugin._app.silent = true
    await once(plugin._httpServer, 'listening')
    return `http://127.0.0.1:${plugin._httpServer.address().port}/accounts/${name}/ilp`
  }

  /** `asset` is {code, scale, value, packetMax}; `value` is what one unit is worth, in any measure. */
  add (name, asset, plugin) {
    this.accounts.set(name, { name, asset, plugin })
    plugin.registerDataHandler(bytes => this.prepare(name, bytes))
  }

  async prepare (name, bytes) {
    const from = this.accounts.get(name)
    const prepare = Ilp.deserializeIlpPrepare(bytes)
    if (prepare.destination === 'peer.config') return this.ildcp(from, bytes)

    const to = this.accounts.get(prepare.destination.slice(ADDRESS.length + 1).split('.')[0])
    if (!to) return reject('F02', 'no route')
    const amount = BigInt(prepare.amount)
    const packetMax = from.asset.packetMax
    if (packetMax && amount > packetMax) {
      const data = Buffer.alloc(16)
      data.writeBigUInt64BE(amount, 0)
      data.writeBigUInt64BE(packetMax, 8)
      return reject('F08', 'too large', data)
    }
    try {
      return await to.plugin.sendData(Ilp.serializeIlpPrepare({
        ...prepare,
        amount: (amount * from.asset.value / to.asset.value).toString(),
        expiresAt: new Date(prepare.expiresAt - EXPIRY_MARGIN_MS)
      }))
    } catch (error) {
      return reject('T01', error.message)
    }
  }

  ildcp ({ name, asset }, bytes) {
    return Ildcp.serve({
      requestPacket: bytes,
      serverAddress: ADDRESS,
      handler: async () => ({ clientAddress: `${ADDRESS}.${name}`, assetCode: asset.code, assetScale: asset.scale })
    })
  }

  async close () {
    for (const { plugin } of this.accounts.values()) await plugin.disconnect()
  }
}

function reject (code, message, data = Buffer.alloc(0)) {
  return Ilp.serializeIlpReject({ code, triggeredBy: ADDRESS, message, data })
}

module.exports = { Hub }
