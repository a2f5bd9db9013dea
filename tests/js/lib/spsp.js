'use strict'
// SPSP over plain HTTP on loopback: a server over a STREAM server, and a query.

const http = require('node:http')

const CONTENT_TYPE = 'application/spsp4+json'

/** Serves fresh STREAM credentials on every path; resolves to the URL. */
async function serve (streamServer, port) {
  const server = http.createServer((request, response) => {
    const { status, body } = answer(streamServer, request)
    response.writeHead(status, {
      'Content-Type': CONTENT_TYPE,
      'Cache-Control': 'no-cache',
      'Access-Control-Allow-Origin': '*',
      'Access-Control-Allow-Headers': 'web-monetization-id'
    })
    response.end(body && JSON.stringify(body))
  })
  await new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  return `http://127.0.0.1:${server.address().port}/`
}

function answer (streamServer, request) {
  if (request.method === 'OPTIONS') return { status: 204 }
  if (request.method !== 'GET') return { status: 405, body: { id: 'MethodNotAllowed', message: 'only GET' } }

  const nonce = request.headers['receipt-nonce']
  const secret = request.headers['receipt-secret']
  const receipts = nonce && secret && {
    receiptNonce: Buffer.from(nonce, 'base64'),
    receiptSecret: Buffer.from(secret, 'base64')
  }
  try {
    const credentials = streamServer.generateAddressAndSecret(receipts || undefined)
    return {
      status: 200,
      body: {
        destination_account: credentials.destinationAccount,
        shared_secret: credentials.sharedSecret.toString('base64'),
        receipts_enabled: credentials.receiptsEnabled
      }
    }
  } catch (error) {
    return { status: 400, body: { id: 'InvalidReceipts', message: error.message } }
  }
}

/** Asks an SPSP endpoint; resolves to what `createConnection` needs. */
async function query (url) {
  const response = await fetch(url, { headers: { Accept: `${CONTENT_TYPE}, application/spsp+json` } })
  const text = await response.text()
  if (response.status !== 200) throw new Error(`SPSP query of ${url} gave ${response.status}: ${text}`)
  const type = response.headers.get('content-type') || ''
  if (!type.startsWith(CONTENT_TYPE)) throw new Error(`SPSP query of ${url} gave content type "${type}"`)
  if (!response.headers.get('cache-control')) throw new Error(`SPSP answer of ${url} has no Cache-Control`)
  const body = JSON.parse(text)
  const sharedSecret = Buffer.from(body.shared_secret, 'base64')
  if (sharedSecret.length !== 32) throw new Error(`SPSP shared secret has ${sharedSecret.length} bytes`)
  return { destinationAccount: body.destination_account, sharedSecret }
}

module.exports = { serve, query }
