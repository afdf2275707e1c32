/** Runs `dog` inside the test's process against a FakeSheep and collects what it did. */
import { readFileSync } from 'node:fs'
import { dogMain } from '../../../src/dog/main.js'
import type { Images } from '../../../src/world/images.js'
import type { FakeSheep } from './fake-sheep.js'

export interface DogResult {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  /** As bytes, for what `vdi read` gives. */
  readonly bytes: Buffer
  /** Both streams as one file would hold them. */
  readonly merged: string
}

export interface DogHow {
  readonly stdin?: string | Buffer | AsyncIterable<Buffer>
  readonly env?: Readonly<Record<string, string>>
  readonly tty?: boolean
  readonly columns?: number
  /** Waits (`after`) the program asked for, in milliseconds, are noted here and over at once. */
  readonly waits?: number[]
  /** Fails every write to stdout with this errno. */
  readonly stdoutError?: string
  /** Files `vdi export` and `import` meet; without them there are none. */
  readonly images?: Images
  /** Called with what SIGINT would do. */
  readonly onInterrupt?: (stop: () => void) => void
  /** Invocations recorded for SHEEPDOG_DOG_LOG. */
  readonly records?: (readonly [string, string | undefined])[]
}

/** Nothing a test asserts depends on chance. */
export const RANDOM = { below: () => 0, bytes: (length: number) => Buffer.alloc(length) }

const none = (): Promise<never> => Promise.reject(new Error('there are no files here'))
export const NO_IMAGES: Images = { open: none, create: none, scratch: none, run: none }

export async function runDog(
  sheep: FakeSheep,
  argv: readonly string[],
  how: DogHow = {},
): Promise<DogResult> {
  const [stdout, stderr, merged]: [Buffer[], Buffer[], Buffer[]] = [[], [], []]
  const into = (own: Buffer[]) => (bytes: Uint8Array) => {
    own.push(Buffer.from(bytes))
    merged.push(Buffer.from(bytes))
  }
  const io = {
    stdout: {
      isTTY: how.tty ?? false,
      write: (bytes: Uint8Array) => {
        const error = Object.assign(new Error('no'), { code: how.stdoutError })
        if (how.stdoutError !== undefined) return Promise.reject(error)
        into(stdout)(bytes)
        return new Promise<void>((resolve) => void setImmediate(resolve))
      },
    },
    stderr: { write: into(stderr) },
    stdin: input(how.stdin),
    columns: how.columns ?? 80,
    version: '2.0.0-test',
    resolve: (name: string) =>
      Promise.resolve(
        /^[\d.:]+$/.test(name) ? name : name === 'localhost' ? '127.0.0.1' : undefined,
      ),
    images: how.images ?? NO_IMAGES,
    onInterrupt: (stop: () => void) => {
      how.onInterrupt?.(stop)
      return () => undefined
    },
    record: (line: string, path: string | undefined) => {
      how.records?.push([line, path])
      return Promise.resolve()
    },
  }
  const clock = {
    now: () => sheep.nowMs,
    monotonic: () => sheep.nowMs,
    after: (delayMs: number, fn: () => void) => {
      how.waits?.push(delayMs)
      sheep.nowMs += delayMs
      setImmediate(fn)
      return () => undefined
    },
    soon: (fn: () => void) => void setImmediate(fn),
  }
  const port = { SHEEPDOG_DOG_PORT: '7020' }
  const status = await dogMain(argv, { ...port, ...how.env }, io, {
    clock,
    network: sheep.network,
    random: RANDOM,
  })
  const all = (parts: readonly Buffer[]): string => Buffer.concat(parts).toString()
  const bytes = Buffer.concat(stdout)
  return { status, bytes, stdout: all(stdout), stderr: all(stderr), merged: all(merged) }
}

async function* input(stdin: DogHow['stdin']): AsyncGenerator<Buffer> {
  if (stdin === undefined) return
  if (typeof stdin === 'string') yield Buffer.from(stdin)
  else if (Buffer.isBuffer(stdin)) yield stdin
  else yield* stdin
}

/** One command of a golden transcript and what 1.0 answered. */
export interface GoldenStep {
  readonly line: number
  readonly argv: readonly string[]
  readonly stdin: string | undefined
  /** Stage directions before it: `> clock 1795253999` moves the clock, and so on. */
  readonly directions: readonly string[]
  /** Lines. */
  readonly answer: readonly string[]
}

/**
 * A transcript in the form of dog-samples: `$ dog ...`, stdout, `[exit N]`, then stderr lines
 * marked `E| `. Ours are lines starting with `> ` (directions; `> stdin TEXT` is input for the
 * next command) and `# ` (comments).
 */
export function readGolden(name: string): GoldenStep[] {
  const text = readFileSync(`test/unit/golden/dog/${name}.txt`, 'utf8')
  const steps: (GoldenStep & { readonly answer: string[] })[] = []
  let directions: string[] = []
  for (const [i, line] of text.split('\n').entries()) {
    if (line.startsWith('# ')) continue
    if (line.startsWith('> ')) directions.push(line.slice(2))
    else if (line.startsWith('$ dog')) {
      const stdin = directions.find((one) => one.startsWith('stdin '))?.slice(6)
      steps.push({ line: i + 1, argv: words(line.slice(5)), stdin, directions, answer: [] })
      directions = []
    } else steps.at(-1)?.answer.push(line)
  }
  return steps
}

function words(text: string): string[] {
  return Array.from(text.matchAll(/'([^']*)'|(\S+)/g), ([, quoted, plain]) => quoted ?? plain ?? '')
}

/** What a run did, written as a transcript writes it. `--json` is ours and left out of the help. */
export function asTranscript({ stdout, stderr, status }: DogResult): string {
  const shown = stdout.replace(/ \[--json\]/g, '').replace(/^ {6}--json .*\n/gm, '')
  const errors = stderr.replace(/^(?=.)/gm, 'E| ')
  return `${shown}[exit ${status}]\n${errors}`.trimEnd()
}
