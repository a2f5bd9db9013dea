'use strict'
// Spawns one of the programs and reads its events.

const { spawn } = require('node:child_process')
const { once } = require('node:events')
const { join } = require('node:path')
const { createInterface } = require('node:readline')

/** A running program; `stop` it, or wait until it has `ended`. */
class Program {
  events = []
  stderr = ''

  constructor (name, flags) {
    const args = Object.entries(flags).flatMap(([flag, value]) => value === true ? [`--${flag}`] : [`--${flag}`, String(value)])
    this.child = spawn(process.execPath, [join(__dirname, '..', name), '--timeout', '20', ...args])
    this.child.stderr.on('data', data => { this.stderr += data })
    this.lines = createInterface({ input: this.child.stdout })
    this.closed = once(this.child, 'close')
    this.lines.on('line', line => {
      this.events.push(JSON.parse(line))
      if (this.wake) this.wake()
    })
  }

  /** The first event of that kind, waiting for it. */
  async event (kind) {
    for (;;) {
      const found = this.events.find(one => one.event === kind)
      if (found) return found
      const more = new Promise(resolve => { this.wake = resolve })
      const closed = this.closed.then(() => true)
      if (await Promise.race([more, closed]) && !this.events.some(one => one.event === kind)) {
        throw new Error(`no ${kind} event; stderr: ${this.stderr}; events: ${JSON.stringify(this.events)}`)
      }
    }
  }

  all (kind) {
    return this.events.filter(one => one.event === kind)
  }

  /** Resolves to the exit code. */
  async ended () {
    const [code] = await this.closed
    return code
  }

  async stop () {
    this.child.kill('SIGTERM')
    return this.ended()
  }
}

module.exports = { Program }
