/**
 * The small files a node lives by (epoch log, config, marks, intents) on a disk that is full: their writes wait for
 * space instead of failing. A node that died of a full disk, or went on without having noted its epoch, would
 * be worse than one that is late. A file of ballast in the meta directory is given up first, so that
 * the epoch that frees space, and the deletions, still fit.
 */
import type { Log } from '../base/log.js'
import type { Clock, Files } from '../world/world.js'

const BALLAST = 'ballast'
const BALLAST_BYTES = 1024 * 1024
const RETRY_MS = 1_000
/** Complaints come this often, not with each try. */
const TRIES_A_COMPLAINT = 30

export interface SteadyOptions {
  readonly files: Files
  readonly clock: Clock
  readonly log: Log
  readonly metaDirectory: string
}

/** The same files; only `writeFileAtomic` is different. It rejects with other errors than those of a full disk. */
export function steadyFiles(options: SteadyOptions): Files {
  const { files } = options
  const writer = new SteadyWriter(options)
  const write: Files['writeFileAtomic'] = (path, data) => writer.write(path, data)
  return new Proxy(files, {
    get: (target, name) => {
      if (name === 'writeFileAtomic') return write
      const member: unknown = Reflect.get(target, name)
      return typeof member === 'function' ? member.bind(target) : member
    },
  })
}

class SteadyWriter {
  readonly #options: SteadyOptions
  readonly #ballast: string

  constructor(options: SteadyOptions) {
    this.#options = options
    this.#ballast = `${options.metaDirectory}/${BALLAST}`
  }

  async write(path: string, data: Uint8Array): Promise<void> {
    const { files, clock, log } = this.#options
    for (let tries = 0; ; tries++) {
      try {
        await files.writeFileAtomic(path, data)
        if (tries > 0) log.info('meta.space-back', { path })
        await this.#load()
        return
      } catch (error) {
        if (!isFull(error)) throw error
        if (tries % TRIES_A_COMPLAINT === 0) log.error('meta.no-space', { path })
        if (await this.#giveUpBallast()) continue
        await new Promise<void>((resolve) => {
          clock.after(RETRY_MS, resolve)
        })
      }
    }
  }

  async #giveUpBallast(): Promise<boolean> {
    const { files, log } = this.#options
    if (!files.exists(this.#ballast)) return false
    log.warn('meta.ballast-given-up')
    await files.unlink(this.#ballast)
    return true
  }

  /** Takes the ballast in when there is room for it. To go without is no failure. */
  async #load(): Promise<void> {
    const { files, log, metaDirectory } = this.#options
    try {
      if (files.exists(this.#ballast)) return
      if (files.space(metaDirectory).freeBytes < 4 * BALLAST_BYTES) return
      const file = files.open(this.#ballast, { write: true, create: true })
      try {
        await file.allocate(BALLAST_BYTES)
      } finally {
        file.close()
      }
    } catch (error) {
      log.warn('meta.no-ballast', { reason: String(error) })
    }
  }
}

function isFull(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ENOSPC' || code === 'EDQUOT'
}
