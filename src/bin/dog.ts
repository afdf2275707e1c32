#!/usr/bin/env node
/** The executable `dog`: real terminal, network and clock around `dogMain`. */
import { execFile } from 'node:child_process'
import { lookup } from 'node:dns/promises'
import { appendFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { promisify } from 'node:util'
import { silentLog } from '../base/log.js'
import type { DogIo } from '../dog/command.js'
import { dogMain } from '../dog/main.js'
import { NodeClock } from '../world/node/clock.js'
import { NodeImages } from '../world/node/images.js'
import { NodeNetwork } from '../world/node/network.js'
import { NodeRandom } from '../world/node/random.js'

const COLUMNS_WITHOUT_TERMINAL = 80
const SYSLOG_IDENT = 'sheepdog admin operation'

const io: DogIo = {
  stdout: {
    isTTY: process.stdout.isTTY === true,
    write: (bytes) =>
      new Promise((resolve, reject) => {
        process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()))
      }),
  },
  stderr: {
    write: (bytes) => {
      process.stderr.write(bytes)
    },
  },
  // Opened only by commands that read it.
  get stdin() {
    return process.stdin
  },
  columns: process.stdout.columns || COLUMNS_WITHOUT_TERMINAL,
  version: version(),
  resolve: async (name) => {
    try {
      return (await lookup(name)).address
    } catch {
      return undefined
    }
  },
  images: new NodeImages(),
  onInterrupt,
  record: async (line, path) => {
    if (path !== undefined) await appendFile(path, `${line}\n`, { mode: 0o600 })
    else await promisify(execFile)('logger', ['-i', '-t', SYSLOG_IDENT, '-p', 'user.info', line])
  },
}

/** A second signal ends the program, whatever it is cleaning up. */
function onInterrupt(stop: () => void): () => void {
  const signals = ['SIGINT', 'SIGTERM'] as const
  for (const signal of signals) process.once(signal, stop)
  return () => {
    for (const signal of signals) process.removeListener(signal, stop)
  }
}

function version(): string {
  const about: { version: string } = createRequire(import.meta.url)('../../../package.json')
  return about.version
}

// Each write reports its own failure; without a listener the stream would end the process first.
process.stdout.on('error', () => undefined)
process.stderr.on('error', () => undefined)

const network = new NodeNetwork(silentLog)
const world = { clock: new NodeClock(), network, random: new NodeRandom() }
process.exit(await dogMain(process.argv.slice(2), process.env, io, world))
