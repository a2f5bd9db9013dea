#!/usr/bin/env node
'use strict'
// The reference connector, ilp-connector, with accounts over any of three plug-ins.
//
// `listening` comes once every account can be reached; it goes on after a line "go" on stdin, so that the
// other side may be told the URLs first. Each further line "status" is answered by an event `status`.

const http = require('node:http')
const { once } = require('node:events')
const { createInterface } = require('node:readline')
const reduct = require('reduct')
const { createApp } = require('ilp-connector')
const Accounts = require('ilp-connector/dist/services/accounts').default
const MiddlewareManager = require('ilp-connector/dist/services/middleware-manager').default
const RouteBroadcaster = require('ilp-connector/dist/services/route-broadcaster').default
const PluginBtp = require('ilp-plugin-btp')
const PluginHttp = require('ilp-plugin-http')
const PluginMiniAccounts = require('ilp-plugin-mini-accounts')
const { setOutputStream } = require('ilp-connector/dist/common/log')
const { emit, run } = require('./lib/cli')

setOutputStream(process.stderr)

const HOST = '127.0.0.1'

const flags = {
  address: { type: 'string', default: 'unknown' }, // unknown: asks its parent
  // {NAME: {relation, asset: "USD/9", link, url, token, port, routes}}; link is btp, btp-server, http or mini
  accounts: { type: 'string', required: true },
  routes: { type: 'string', default: '[]' } // static ones: [{targetPrefix, peerId}]
}

run(flags, async (flags, stopped) => {
  const urls = {}
  const accounts = {}
  for (const [name, account] of Object.entries(JSON.parse(flags.accounts))) {
    const [assetCode, assetScale] = account.asset.split('/')
    const { plugin, url } = await open(account)
    if (url) urls[name] = url
    accounts[name] = {
      relation: account.relation,
      assetCode,
      assetScale: Number(assetScale),
      plugin,
      balance: { minimum: '-Infinity', maximum: 'Infinity' },
      sendRoutes: account.routes,
      receiveRoutes: account.routes
    }
  }

  const container = reduct()
  const app = createApp({
    env: 'test',
    ilpAddress: flags.address,
    accounts,
    routes: JSON.parse(flags.routes),
    backend: 'one-to-one',
    spread: 0
  }, container)
  // The last moment before it speaks: whatever comes in has somebody to go to.
  const services = container(Accounts)
  const loadIlpAddress = services.loadIlpAddress.bind(services)
  const lines = createInterface({ input: process.stdin })
  services.loadIlpAddress = async () => {
    emit({ event: 'listening', urls })
    await once(lines, 'line')
    await loadIlpAddress()
  }

  const started = app.listen()
  const ready = started.then(() => {
    emit({ event: 'ready', ready: true, address: services.getOwnAddress() })
    lines.on('line', () => emit({ event: 'status', ...status(container, services) }))
  })
  await Promise.race([stopped, ready])
  await stopped
  await Promise.race([app.shutdown(), new Promise(resolve => setTimeout(resolve, 1000))])
  emit({ event: 'end' })
})

/** Which account each prefix leads to, and what each account owes, as the connector itself sees it. */
function status (container, services) {
  const { localRoutingTable, peers } = container(RouteBroadcaster).getStatus()
  const { accounts } = container(MiddlewareManager).getMiddleware('balance').getStatus()
  const map = (object, field) => Object.fromEntries(Object.entries(object).map(([name, value]) => [name, field(value)]))
  return {
    address: services.getOwnAddress(),
    routes: map(localRoutingTable, route => route.nextHop),
    paths: map(localRoutingTable, route => route.path),
    balances: map(accounts, account => account.balance),
    telling: map(peers, peer => peer.send ? peer.send.mode : null)
  }
}

/** A plug-in that can be reached from now on, and its URL if somebody has to dial it. */
async function open ({ link, url, token, port = 0 }) {
  switch (link) {
    case 'btp':
      return { plugin: new PluginBtp({ server: url.replace('://', `://:${token}@`) }) }
    case 'btp-server': {
      const server = await bound(port)
      const listener = { port: 0, secret: token, wsOpts: { server } }
      const address = `btp+ws://${HOST}:${server.address().port}`
      return { plugin: new PluginBtp({ listener }), url: address }
    }
    case 'mini': {
      const server = await bound(port)
      const plugin = new PluginMiniAccounts({ wsOpts: { server }, port: 0, generateAccount: true })
      return { plugin, url: `btp+ws://${HOST}:${server.address().port}` }
    }
    case 'http': {
      const plugin = new PluginHttp({
        incoming: { port: { host: HOST, port }, staticToken: token },
        outgoing: { url, staticToken: token, name: 'js' }
      })
      await plugin.connect()
      plugin._app.silent = true
      if (!plugin._httpServer.listening) await once(plugin._httpServer, 'listening')
      return { plugin, url: `http://${HOST}:${plugin._httpServer.address().port}/` }
    }
    default:
      throw new Error(`no link is called ${link}`)
  }
}

/** A server on a port that is known before the plug-in, which would bind every interface, listens. */
async function bound (port) {
  const server = http.createServer((_request, response) => response.writeHead(503).end())
  server.listen(port, HOST)
  await once(server, 'listening')
  server.listen = () => server
  return server
}
