#!/usr/bin/env node
/** The executable `dog`: real terminal, network and clock around `dogMain`. */
import { execFile, spawn } from 'node:child_process'
import { lookup } from 'node:dns/promises'
import { appendFile } from 'node:fs/promises'
import { isatty } from 'node:tty'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { silentLog } from '../base/log.js'
import type { DogIo } from '../dog/command.js'
import { Exit } from '../dog/failure.js'
import { dogMain } from '../dog/main.js'
import { NodeClock } from '../world/node/clock.js'
import { NodeImages } from '../world/node/images.js'
import { NodeNbdKernel } from '../world/node/nbd-kernel.js'
import { NodeNetwork } from '../world/node/network.js'
import { packageVersion } from '../world/node/package.js'
import { NodeRandom } from '../world/node/random.js'
import { tlsClient } from '../world/node/tls-client.js'

const COLUMNS_WITHOUT_TERMINAL = 80
const SYSLOG_IDENT = 'sheepdog admin operation'

/** What a dog left behind says to who started it: its output in order, then that it is ready. */
type Word = { readonly text: string } | { readonly ready: true }

const io: DogIo = {
  stdout: {
    isTTY: process.stdout.isTTY === true,
    write: (bytes) =>
      new Promise((resolve, reject) => {
        const done = (error: Error | null | undefined): void => (error ? reject(error) : resolve())
        if (process.connected) tell({ text: Buffer.from(bytes).toString() }, done)
        else process.stdout.write(bytes, done)
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
  // A descriptor's kind is known without opening it.
  stdinIsTTY: isatty(0),
  columns: process.stdout.columns || COLUMNS_WITHOUT_TERMINAL,
  version: packageVersion(),
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
  startBehind,
  ready: () => {
    if (!process.connected) return
    // What was given as a relative path has been looked up; nobody's file system is held on to.
    process.chdir('/')
    tell({ ready: true }, () => process.disconnect())
  },
}

function tell(word: Word, done: (error: Error | null) => void): void {
  process.send?.(word, undefined, undefined, done)
}

/** Its standard error is ours until it is ready; afterwards what it has to say goes to the system's log. */
function startBehind(more: readonly string[]): Promise<number> {
  const [noun = '', sub = '', ...rest] = process.argv.slice(2)
  const words = [fileURLToPath(import.meta.url), noun, sub, ...more, ...rest]
  const child = spawn(process.execPath, words, {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
  child.stderr?.on('data', (bytes: Buffer) => process.stderr.write(bytes))
  return new Promise((resolve) => {
    child.on('message', (word: Word) => {
      if ('text' in word) process.stdout.write(word.text)
      else resolve(Exit.ok)
    })
    child.once('error', (error) => {
      process.stderr.write(`dog: ${error.message}\n`)
      resolve(Exit.system)
    })
    child.once('close', (status) => resolve(status ?? Exit.system))
  })
}

/** A second signal ends the program, whatever it is cleaning up. */
function onInterrupt(stop: () => void): () => void {
  const signals = ['SIGINT', 'SIGTERM'] as const
  for (const signal of signals) process.once(signal, stop)
  return () => {
    for (const signal of signals) process.removeListener(signal, stop)
  }
}

// Each write reports its own failure; without a listener the stream would end the process first.
process.stdout.on('error', () => undefined)
process.stderr.on('error', () => undefined)

const world = {
  clock: new NodeClock(),
  network: new NodeNetwork(silentLog),
  random: new NodeRandom(),
  nbdKernel: new NodeNbdKernel(),
  tlsClient,
}
process.exit(await dogMain(process.argv.slice(2), process.env, io, world))
