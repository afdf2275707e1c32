/** The daemons of a quick-start cluster as child processes, and `dog` to talk to them. */
import { type ChildProcess, spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { PACKAGE_ROOT } from '../../world/node/package.js'

const SHEEP = `${PACKAGE_ROOT}/build/bin/sheep.cjs`
const DOG = `${PACKAGE_ROOT}/build/bin/dog.js`
const WORDS_BYTES_MAX = 16_384
const LOG_TAIL_LINES = 15
const DOG_MS = 60_000

export interface SheepPlan {
  readonly directory: string
  readonly port: number
  readonly zone: number
  /** Where the members meet. */
  readonly meeting: string
  /** Only the first one opens an NBD door. */
  readonly nbdPort?: number
}

export interface SheepChild {
  readonly plan: SheepPlan
  readonly ended: Promise<void>
  isAlive(): boolean
  kill(signal: NodeJS.Signals): void
  /** How it ended, what it printed and the end of its log. */
  lastWords(): Promise<string>
}

/** Starts one sheep in a process group of its own, so that Ctrl-C reaches us and not it. */
export function startSheep(plan: SheepPlan): SheepChild {
  const { directory, port, zone, meeting, nbdPort } = plan
  const where = ['-b', '127.0.0.1', '-y', '127.0.0.1', '-p', `${port}`, '-z', `${zone}`]
  const nbd = nbdPort === undefined ? [] : ['--nbd', `127.0.0.1:${nbdPort}`]
  const args = [SHEEP, '--no-config', '-f', '-c', `local:${meeting}`, ...where, ...nbd, directory]
  const child = spawn(process.execPath, args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [alive, words, how] = [true, '', '']
  const hear = (chunk: Buffer) => {
    words = `${words}${chunk.toString()}`.slice(-WORDS_BYTES_MAX)
  }
  child.stdout.on('data', hear)
  child.stderr.on('data', hear)
  const ended = new Promise<void>((resolve) => {
    const over = (text: string) => {
      how = text
      alive = false
      resolve()
    }
    child.once('error', (error) => over(error.message))
    child.once('exit', (code, signal) => over(signal ?? `exit code ${code}`))
  })
  return {
    plan,
    ended,
    isAlive: () => alive,
    kill: (signal) => void child.kill(signal),
    lastWords: async () => [how, words.trimEnd(), await logTail(directory)].join('\n').trim(),
  }
}

async function logTail(directory: string): Promise<string> {
  const path = `${directory}/sheep.log`
  try {
    const lines = (await readFile(path, 'utf8')).trimEnd().split('\n')
    return [`end of ${path}:`, ...lines.slice(-LOG_TAIL_LINES)].join('\n')
  } catch (error) {
    return `(no log: ${(error as Error).message})`
  }
}

/** Runs `dog` to its end and returns what it printed. Throws an Error with its words when it fails. */
export function dog(port: number, ...words: readonly string[]): Promise<string> {
  const args = [DOG, ...words, '-a', '127.0.0.1', '-p', `${port}`]
  const child: ChildProcess = spawn(process.execPath, args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const limit = setTimeout(() => child.kill('SIGKILL'), DOG_MS)
  let [out, err] = ['', '']
  child.stdout?.on('data', (chunk: Buffer) => {
    out += chunk.toString()
  })
  child.stderr?.on('data', (chunk: Buffer) => {
    err += chunk.toString()
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(limit)
      if (code === 0) resolve(out)
      else
        reject(new Error(`dog ${words.join(' ')}: ${signal ?? `exit code ${code}`}\n${out}${err}`))
    })
  })
}
