'use strict'
// What every program here shares: flags, JSON lines on stdout, errors on stderr, a bounded life.

const { parseArgs } = require('node:util')

const TIMEOUT_SECONDS_DEFAULT = '60'

/** Prints one event as a JSON line. Buffers become base64. */
function emit (event) {
  process.stdout.write(JSON.stringify(event, (_key, value) =>
    value && value.type === 'Buffer' ? Buffer.from(value.data).toString('base64') : value) + '\n')
}

/** An error in how the program was called: exit code 2. */
class UsageError extends Error {}

/**
 * Runs `main(flags, stopped)` with the flags of `options` (the form of `util.parseArgs`, plus
 * `required: true`). `stopped` is a promise that SIGTERM or SIGINT resolves. The process ends when
 * `main` does, whatever sockets a plug-in leaves behind: 0 done, 1 failed or out of time, 2 usage.
 */
function run (options, main) {
  const stopped = new Promise(resolve => {
    process.once('SIGTERM', resolve)
    process.once('SIGINT', resolve)
  })
  // A parent that has gone must not keep us.
  process.stdout.on('error', () => process.exit(1))

  const finish = (code, error) => {
    if (error) process.stderr.write(`error: ${error.message || error}\n`)
    process.exit(code)
  }

  let flags
  try {
    flags = parse(options)
  } catch (error) {
    return finish(2, error)
  }
  setTimeout(() => finish(1, new Error(`timed out after ${flags.timeout} s`)), Number(flags.timeout) * 1000)
  Promise.resolve()
    .then(() => main(flags, stopped))
    .then(code => finish(code || 0), error => finish(error instanceof UsageError ? 2 : 1, error))
}

function parse (options) {
  const all = { ...options, timeout: { type: 'string', default: TIMEOUT_SECONDS_DEFAULT } }
  const plain = Object.fromEntries(Object.entries(all).map(([name, { required, integer, ...rest }]) => [name, rest]))
  const { values } = parseArgs({ options: plain, strict: true, allowPositionals: false })
  for (const [name, option] of Object.entries(all)) {
    const value = values[name]
    if (option.required && value === undefined) throw new UsageError(`--${name} is missing`)
    if (option.integer && value !== undefined && !/^[0-9]+$/.test(value)) {
      throw new UsageError(`--${name} must be a whole number, got ${value}`)
    }
  }
  if (!(Number(values.timeout) > 0)) throw new UsageError('--timeout must be a number of seconds')
  return values
}

module.exports = { emit, run, UsageError }
