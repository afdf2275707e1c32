/** What a process and the service manager that started it have between them (sd_notify(3), sd_listen_fds(3)). */
import { spawn } from 'node:child_process'
import { fstatSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { loadAddon } from './addon.js'

interface Binding {
  notify(socket: string, text: string): void
  duplicate(fd: number): number
}

let loaded: Binding | undefined
let isLooked = false

function binding(): Binding | undefined {
  if (!isLooked) {
    isLooked = true
    const found = loadAddon('service')
    if (found.absent === undefined) loaded = found.binding as Binding
  }
  return loaded
}

/**
 * Sends the manager lines of KEY=VALUE. Throws an errno error when they did not get there (EAGAIN: the manager is
 * busy, later ones may).
 */
export type Notify = (lines: string) => void

/**
 * `socket`: NOTIFY_SOCKET, a path or `@name`. Without the binding the program systemd-notify is asked to do it, one
 * message after the other; what it cannot do `failed` hears.
 */
export function notifyWay(socket: string, failed: (reason: string) => void): Notify {
  const native = binding()
  if (native !== undefined) return (lines) => native.notify(socket, lines)
  return programWay(socket, failed)
}

/** Which of the two ways; for the log. */
export function hasServiceBinding(): boolean {
  return binding() !== undefined
}

function programWay(socket: string, failed: (reason: string) => void): Notify {
  /** Of what waits only the newest value of each key counts. */
  let waiting = new Map<string, string>()
  let isRunning = false
  const next = (): void => {
    // That we stop is not kept for after the one before: we may be gone by then.
    if (waiting.size === 0 || (isRunning && !waiting.has('STOPPING'))) return
    isRunning = true
    const words = Array.from(waiting, ([key, value]) => `${key}=${value}`)
    waiting = new Map()
    const ended = (reason: string | undefined): void => {
      isRunning = false
      if (reason !== undefined) failed(reason)
      next()
    }
    const env = { PATH: process.env.PATH ?? '/usr/bin:/bin', NOTIFY_SOCKET: socket }
    // Its own process may not be the last one the manager sees of us: hence NotifyAccess=all in the units.
    const child = spawn('systemd-notify', ['--', ...words], { env, stdio: 'ignore' })
    child.once('error', (error) => ended(`systemd-notify: ${error.message}`))
    child.once('exit', (status) => {
      ended(status === 0 ? undefined : `systemd-notify: status ${status}`)
    })
  }
  return (lines) => {
    for (const line of lines.split('\n')) {
      const at = line.indexOf('=')
      if (at > 0) waiting.set(line.slice(0, at), line.slice(at + 1))
    }
    next()
  }
}

/** Sockets that were passed in and have been given to a server for good. */
const spent = new Set<number>()

/**
 * A descriptor for one server that listens at a socket which was passed in; closing it leaves the original open for the
 * next life of the node. Without the binding the original itself, once: throws an Error the second time.
 */
export function descriptorFor(fd: number): number {
  const native = binding()
  if (native !== undefined) return native.duplicate(fd)
  if (spent.has(fd)) {
    throw new Error(
      `socket ${fd} of the service manager is closed, and cannot be kept without the binding 'service': ` +
        'the service has to be started anew',
    )
  }
  spent.add(fd)
  return fd
}

/** CLOCK_MONOTONIC, as MONOTONIC_USEC wants it. */
export function monotonicUsec(): bigint {
  return process.hrtime.bigint() / 1000n
}

/** Resolves when the thread pool has been to `path` and back. */
export async function throughThePool(path: string): Promise<void> {
  await stat(path)
}

/** Whether what is written to `fd` goes to the journal (JOURNAL_STREAM, systemd.exec(5)). */
export function goesToJournal(fd: number): boolean {
  const stream = process.env.JOURNAL_STREAM
  if (stream === undefined) return false
  const { dev, ino } = fstatSync(fd, { bigint: true })
  return stream === `${dev}:${ino}`
}
