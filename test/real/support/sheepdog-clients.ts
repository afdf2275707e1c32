/** QEMU 5.2 and its tools on the sheepdog protocol; each call throws with the client's whole output. */
import { setTimeout as pause } from 'node:timers/promises'
import type { TestCluster } from './cluster.js'
import { QEMU52 } from './qemu52.js'
import { type Running, type RunResult, run, start, tryRun } from './run.js'

const LONG_MS = 300_000
const ANSWER_MS = 60_000

/** `sheepdog:host:port:vdi[:tag or id]`, as the documents write it; through node `index`. */
export function vdiName(cluster: TestCluster, name: string, index = 0): string {
  const { host, port } = cluster.node(index)
  return `sheepdog:${host}:${port}:${name}`
}

/** The same over the socket in the node's store. */
export function unixName(cluster: TestCluster, name: string, index = 0): string {
  const socket = `${cluster.node(index).place.directory}/sock`
  return `sheepdog+unix:///${name}?socket=${socket}`
}

export function img(...words: readonly string[]): Promise<RunResult> {
  return run([QEMU52.img, ...words], { timeoutMs: LONG_MS })
}

/** Where a command is to fail. */
export function tryImg(...words: readonly string[]): Promise<RunResult> {
  return tryRun([QEMU52.img, ...words], { timeoutMs: LONG_MS })
}

export type CacheMode = 'none' | 'writeback' | 'writethrough' | 'directsync'

/** Runs qemu-io commands; a pattern that does not match is an error of qemu-io's. */
export function io(
  vdi: string,
  commands: readonly string[],
  { cache = 'writeback', format = 'raw' }: { cache?: CacheMode; format?: string } = {},
): Promise<RunResult> {
  const words = commands.flatMap((command) => ['-c', command])
  const command = [QEMU52.io, '-f', format, '-t', cache, '-d', 'unmap', ...words, vdi]
  return run(command, { timeoutMs: LONG_MS })
}

const PROMPT = 'qemu-io> '

/** One qemu-io that stays: it keeps its volume open from one command to the next. */
export class OpenVolume {
  readonly #process: Running
  #heard = ''

  private constructor(vdi: string, cache: CacheMode) {
    const command = [QEMU52.io, '-f', 'raw', '-t', cache, '-d', 'unmap', vdi]
    this.#process = start(command, { interactive: true })
    this.#process.child.stdout?.on('data', (chunk: Buffer) => {
      this.#heard += chunk.toString()
    })
    this.#process.child.stderr?.on('data', (chunk: Buffer) => {
      this.#heard += chunk.toString()
    })
  }

  static async open(vdi: string, cache: CacheMode = 'writeback'): Promise<OpenVolume> {
    const volume = new OpenVolume(vdi, cache)
    await volume.#hears(PROMPT)
    return volume
  }

  /** Runs one command; throws unless what was said to it has `pattern` in it. */
  async tell(command: string, pattern = /^/): Promise<string> {
    this.#process.child.stdin?.write(`${command}\n`)
    // What it says comes with the next prompt, and so do results of commands in the background.
    const said = await this.#hears(PROMPT)
    if (!pattern.test(said)) throw new Error(`qemu-io said to ${command}: ${said}`)
    return said
  }

  async #hears(end: string): Promise<string> {
    const late = performance.now() + ANSWER_MS
    for (;;) {
      const found = this.#heard.indexOf(end)
      if (found >= 0) {
        const said = this.#heard.slice(0, found)
        this.#heard = this.#heard.slice(found + end.length)
        return said
      }
      if (this.#process.ended()) throw new Error(`qemu-io ended: ${this.#heard}`)
      if (performance.now() > late) throw new Error(`qemu-io stays silent: ${this.#heard}`)
      await pause(20)
    }
  }

  /** Ends it in order; throws when it failed. */
  async close(): Promise<void> {
    this.#process.child.stdin?.end('quit\n')
    const { code, stderr } = await this.#process.done
    if (code !== 0) throw new Error(`qemu-io ended with ${code}: ${stderr}`)
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#process.done
  }
}
