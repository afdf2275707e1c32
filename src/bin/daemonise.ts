/**
 * A command that goes on in the background. The process that was typed makes another one of itself and waits until that one
 * reports: its exit status tells whether the service is up, not just whether it was started.
 */
import { spawn } from 'node:child_process'

export interface Background {
  /** The program, for messages. */
  readonly name: string
  /** Path of the file Node runs. */
  readonly entry: string
  /** Environment variable set in the process that stays. */
  readonly mark: string
  /** Where the process that stays writes when nobody reads its stderr. */
  readonly logPlace: string
}

interface Report {
  /** Undefined: it is up. */
  readonly failure: string | undefined
}

/** Whether this process is the one that stays. Its own children are not marked. */
export function isBackground({ mark }: Background): boolean {
  const isMarked = process.env[mark] !== undefined
  delete process.env[mark]
  return isMarked
}

export function complain({ name }: Background, message: string): void {
  process.stderr.write(`${name}: ${message}\n`)
}

/** Starts the process that stays, with the same words. Resolves to the exit status of the process that was typed. */
export function daemonise(background: Background): Promise<number> {
  const { entry, mark, logPlace } = background
  const child = spawn(process.execPath, [entry, ...process.argv.slice(2)], {
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    env: { ...process.env, [mark]: '1' },
  })
  return new Promise((resolve) => {
    child.once('message', ({ failure }: Report) => {
      if (failure !== undefined) complain(background, failure)
      child.disconnect()
      child.unref()
      resolve(failure === undefined ? 0 : 1)
    })
    child.once('error', (error) => {
      complain(background, `the daemon could not be started: ${error.message}`)
      resolve(1)
    })
    child.once('exit', (status, signal) => {
      const how = signal ?? `status ${status}`
      complain(background, `the daemon ended while starting (${how}); see ${logPlace}`)
      resolve(1)
    })
  })
}

/** Tells whoever started this process how it went: the process that waits for it, or the terminal. */
export function report(background: Background, failure: string | undefined): void {
  if (process.send === undefined) {
    if (failure !== undefined) complain(background, failure)
    return
  }
  const message: Report = { failure }
  process.send(message, () => {
    if (process.connected) process.disconnect()
  })
}
