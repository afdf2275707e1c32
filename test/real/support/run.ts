/**
 * Child processes for tests: each has a time limit, each dies with us, and a failure carries everything
 * the command printed, because a test that says only "exit code 1" has to be run again by hand.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { performance } from 'node:perf_hooks'

const TIMEOUT_MS = 120_000
/** What one stream of one command may print; beyond it the middle is dropped, not the end. */
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024
/** How long a command's pipes may stay open after its end, held by a daemon it left behind. */
const PIPES_MS = 1000
const SETPRIV = '/usr/bin/setpriv'
/** mke2fs and its like live where an ordinary user's PATH does not look; and texts stay English. */
const TOOL_ENV = { PATH: `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`, LC_ALL: 'C' }

export interface RunOptions {
  readonly timeoutMs?: number
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  /** Given to the command's standard input; nothing when absent. */
  readonly input?: string | Uint8Array
  /** Its standard input stays open for who writes to `child.stdin`. */
  readonly interactive?: boolean
}

export interface RunResult {
  /** Exit code; 128 + 9 and the like never appear: a signal is in `signal`, with code -1. */
  readonly code: number
  readonly signal: string
  readonly timedOut: boolean
  readonly stdout: string
  readonly stderr: string
  readonly bytes: Buffer
  readonly wallMs: number
}

/** A command that is running. `done` never rejects; `pid` is the command's own. */
export interface Running {
  readonly pid: number
  readonly child: ChildProcess
  readonly done: Promise<RunResult>
  /** Sends the signal to this process only. */
  kill(signal: NodeJS.Signals): void
  ended(): boolean
}

/** The whole story of a command that did not do what it should. */
export class CommandFailed extends Error {
  readonly result: RunResult

  constructor(words: readonly string[], result: RunResult) {
    const how = result.timedOut ? 'did not end in time' : result.signal || `code ${result.code}`
    const parts = [`${words.join(' ')}: ${how} after ${Math.round(result.wallMs)} ms`]
    if (result.stderr !== '') parts.push(`stderr:\n${tail(result.stderr)}`)
    if (result.stdout !== '') parts.push(`stdout:\n${tail(result.stdout)}`)
    super(parts.join('\n'))
    this.name = 'CommandFailed'
    this.result = result
  }
}

const living = new Set<ChildProcess>()
let watching = false

/** Starts a command without waiting for it. Throws when it cannot be started at all. */
export function start(words: readonly string[], options: RunOptions = {}): Running {
  watchOverChildren()
  const [command, ...args] = dyingWithUs(words)
  const child = spawn(command!, args, {
    stdio: [hasInput(options) ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    cwd: options.cwd,
    env: { ...process.env, ...TOOL_ENV, ...options.env },
  })
  living.add(child)
  // A command that ends without reading its input is judged by its exit code, not by EPIPE here.
  child.stdin?.on('error', () => undefined)
  if (options.input !== undefined) child.stdin?.end(options.input)
  const done = collect(child, options.timeoutMs)
  return {
    pid: child.pid ?? -1,
    child,
    done,
    kill: (signal) => void child.kill(signal),
    ended: () => !living.has(child),
  }
}

function hasInput({ input, interactive }: RunOptions): boolean {
  return input !== undefined || interactive === true
}

/** Runs to the end, whatever the exit code is. */
export async function tryRun(
  words: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  return start(words, { timeoutMs: TIMEOUT_MS, ...options }).done
}

/** Runs to the end; anything but exit code 0 throws CommandFailed. */
export async function run(words: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return succeeded(words, await tryRun(words, options))
}

/** Throws CommandFailed unless `result` is a success. */
export function succeeded(words: readonly string[], result: RunResult): RunResult {
  if (result.code !== 0) throw new CommandFailed(words, result)
  return result
}

function collect(child: ChildProcess, timeoutMs: number | undefined): Promise<RunResult> {
  const began = performance.now()
  const out = gather(child.stdout)
  const err = gather(child.stderr)
  let timedOut = false
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true
          child.kill('SIGTERM')
          setTimeout(() => child.kill('SIGKILL'), 3000).unref()
        }, timeoutMs)
  return new Promise((resolve) => {
    const end = (code: number, signal: string, trouble = '') => {
      clearTimeout(timer)
      living.delete(child)
      const bytes = out()
      const stderr = `${err().toString()}${trouble}`
      const wallMs = performance.now() - began
      resolve({ code, signal, timedOut, stdout: bytes.toString(), stderr, bytes, wallMs })
    }
    child.on('error', (error) => end(127, '', error.message))
    const over = (code: number | null, signal: string | null) =>
      end(timedOut ? -1 : (code ?? -1), signal ?? '')
    child.on('close', over)
    child.on('exit', (code, signal) => {
      living.delete(child)
      setTimeout(() => over(code, signal), PIPES_MS).unref()
    })
  })
}

function gather(stream: NodeJS.ReadableStream | null): () => Buffer {
  const chunks: Buffer[] = []
  let held = 0
  stream?.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    held += chunk.length
    while (held > OUTPUT_BYTES_MAX && chunks.length > 2) held -= chunks.splice(1, 1)[0]!.length
  })
  return () => Buffer.concat(chunks)
}

function tail(text: string): string {
  return text.length > 12_000 ? `...${text.slice(-12_000)}` : text
}

/** Even when we are killed outright, no daemon of a test may stay behind. */
function dyingWithUs(words: readonly string[]): readonly string[] {
  return existsSync(SETPRIV) ? [SETPRIV, '--pdeathsig', 'KILL', '--', ...words] : words
}

function watchOverChildren(): void {
  if (watching) return
  watching = true
  process.on('exit', () => {
    for (const child of living) child.kill('SIGKILL')
  })
}

/** Asks until `probe` gives something; throws with `what` and the last error when time is up. */
export async function until<T>(
  what: string,
  timeoutMs: number,
  probe: () => Promise<T | undefined | false> | T | undefined | false,
): Promise<T> {
  const end = performance.now() + timeoutMs
  let last = ''
  for (;;) {
    try {
      const answer = await probe()
      if (answer !== undefined && answer !== false) return answer
    } catch (error) {
      last = error instanceof Error ? error.message : String(error)
    }
    if (performance.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms. ${last}`)
    await pause(100)
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
