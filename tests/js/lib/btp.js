'use strict'
// Opens ilp-plugin-btp as a client, or as a server on a free loopback port.

const http = require('node:http')
const PluginBtp = require('ilp-plugin-btp')
const { emit, UsageError } = require('./cli')

/** The flags that `plugin` understands. */
const btpFlags = {
  btp: { type: 'string' }, // btp+ws://[name]:token@host:port/path
  'btp-listen': { type: 'string', integer: true }, // port, 0 for any free one
  'btp-token': { type: 'string', default: 'secret' } // what a client of --btp-listen must show
}

/**
 * A plug-in that is not connected yet. With --btp-listen a `listening` event with the URL to dial
 * is printed as soon as somebody can dial it; `connect()` then waits for that client.
 */
function plugin (flags) {
  if ((flags.btp === undefined) === (flags['btp-listen'] === undefined)) {
    throw new UsageError('give one of --btp and --btp-listen')
  }
  if (flags.btp !== undefined) return new PluginBtp({ server: flags.btp })

  const server = http.createServer()
  // The plug-in calls `server.listen(port)`, which would bind every interface.
  server.once('listening', () => {
    const url = `btp+ws://:${flags['btp-token']}@127.0.0.1:${server.address().port}`
    emit({ event: 'listening', btp_url: url })
  })
  return new PluginBtp({
    listener: {
      port: { host: '127.0.0.1', port: Number(flags['btp-listen']) },
      secret: flags['btp-token'],
      wsOpts: { server }
    }
  })
}

module.exports = { btpFlags, plugin }
