/** `-w size=S[,dir=D][,directio]` (cluster spec, section 16): the object cache. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { InvalidArgumentError } from 'commander'
import type { CacheOptions } from '../sheep/cache/object-cache.js'

const MIB = 1024 ** 2
const SIZE_BYTES_MIN = 10 * MIB
const SIZE_BYTES_MAX = 4194304 * 1024 ** 3
const UNITS = 'BKMGTP'
const EXAMPLE = '-w size=20G,dir=/ssd'
/** Changes with every start of the machine (random(4)). */
const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id'

export interface CachePlan {
  readonly sizeBytes: number
  /** Undefined: the store directory. */
  readonly directory: string | undefined
  /** Files of objects are read and written past the page cache. */
  readonly directio: boolean
}

export function cachePlan(text: string): CachePlan {
  let sizeBytes: number | undefined
  let directory: string | undefined
  let directio = false
  for (const part of text.split(',')) {
    const [key, value = ''] = part.split(/=(.*)/s)
    if (key === 'size') sizeBytes = cacheSize(value)
    else if (key === 'dir' && value !== '') directory = value
    else if (part === 'directio') directio = true
    else {
      throw new InvalidArgumentError(
        `'${part}' is none of size=, dir= and directio, as in ${EXAMPLE} ` +
          '(worker threads of sheepdog 1.0 are --wq-threads).',
      )
    }
  }
  if (sizeBytes === undefined) {
    throw new InvalidArgumentError(`'${text}' has no size=, as in ${EXAMPLE}.`)
  }
  return { sizeBytes, directory, directio }
}

/** Whole MiB, as 0.9 kept it. */
function cacheSize(text: string): number {
  const [, digits, unit = 'B'] = /^(\d+(?:\.\d+)?)([BKMGTP])?$/i.exec(text) ?? []
  const bytes = Number(digits) * 1024 ** UNITS.indexOf(unit.toUpperCase())
  if (bytes >= SIZE_BYTES_MIN && bytes <= SIZE_BYTES_MAX) return Math.floor(bytes / MIB) * MIB
  throw new InvalidArgumentError(`size=${text} is not from 10M to 4194304G, as in ${EXAMPLE}.`)
}

/** Undefined: no cache. */
export function cacheOptions(
  plan: CachePlan | undefined,
  metaDirectory: string,
): CacheOptions | undefined {
  if (plan === undefined) return undefined
  const { sizeBytes, directory, directio } = plan
  return { sizeBytes, directory: resolve(directory ?? metaDirectory), directio, boot: bootId() }
}

/** '' where the kernel does not tell: then what a crash left in the cache is never pushed by itself. */
function bootId(): string {
  try {
    return readFileSync(BOOT_ID_FILE, 'latin1').trim()
  } catch {
    return ''
  }
}
