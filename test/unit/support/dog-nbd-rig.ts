/** Runs of `dog nbd` against a kernel and servers that are made of objects (fake-nbd-kernel.ts). */
import { dogMain } from '../../../src/dog/main.js'
import { NO_IMAGES, RANDOM } from './dog-rig.js'
import { FakeNbdKernel, type FakeServer, WRITABLE } from './fake-nbd-kernel.js'
import { VirtualClock } from './virtual-clock.js'

export const MEBIBYTE = 1024 * 1024
/** Where servers are. */
export const [A, B] = ['10.0.0.1:10809', '10.0.0.2:10809'] as const

export function server(sizeMib = 64, flags = WRITABLE): FakeServer {
  return { exports: new Map([['Alice', { sizeBytes: sizeMib * MEBIBYTE, flags }]]) }
}

export interface Run {
  readonly done: Promise<number>
  readonly out: () => string
  readonly errors: () => string
  readonly log: string[]
}

export interface Rig {
  readonly kernel: FakeNbdKernel
  readonly clock: VirtualClock
  dog(...words: string[]): Run
}

export function rig(): Rig {
  const kernel = new FakeNbdKernel()
  const clock = new VirtualClock()
  const dog = (...words: string[]): Run => {
    let [out, errors] = ['', '']
    const log: string[] = []
    const io = {
      stdout: {
        isTTY: false,
        write: async (bytes: Uint8Array) => {
          out += Buffer.from(bytes).toString()
        },
      },
      stderr: {
        write: (bytes: Uint8Array) => {
          errors += Buffer.from(bytes).toString()
        },
      },
      stdin: (async function* () {})(),
      columns: 80,
      version: 'test',
      resolve: async (name: string) => name,
      images: NO_IMAGES,
      onInterrupt: () => () => undefined,
      record: async (line: string) => void log.push(line),
    }
    const { network, tlsClient } = kernel
    const world = { clock, random: RANDOM, network, nbdKernel: kernel, tlsClient }
    const done = dogMain(['nbd', ...words], {}, io, world)
    return { done, out: () => out, errors: () => errors, log }
  }
  return { kernel, clock, dog }
}

/** Exit status, standard output, standard error. */
export async function status(run: Run): Promise<readonly [number, string, string]> {
  return [await run.done, run.out(), run.errors()]
}
