/** The plain store on a file system in memory, with one disk unless told otherwise. */
import { silentLog } from '../../../src/base/log.js'
import {
  openPlainStore,
  type PlainStore,
  type PlainStoreOptions,
} from '../../../src/store/plain-store.js'
import type { Clock } from '../../../src/world/world.js'
import { FakeFiles } from './fake-files.js'

export const META = '/sheep'

const clock: Clock = {
  now: () => 0,
  monotonic: () => 0,
  after: () => () => undefined,
  soon: (fn) => void setImmediate(fn),
}

let ids = 0

/** Never the same twice. */
function freshId(length: number): Buffer {
  const id = Buffer.alloc(length)
  id.writeUInt32LE(++ids)
  return id
}

export type StoreExtras = Partial<Omit<PlainStoreOptions, 'files'>>

export function openFakeStore(files: FakeFiles, extras: StoreExtras = {}): Promise<PlainStore> {
  return openPlainStore({
    files,
    clock,
    random: { bytes: freshId },
    log: silentLog,
    metaDirectory: META,
    disks: [],
    durable: true,
    ...extras,
  })
}

export async function freshFakeStore(
  extras: StoreExtras = {},
): Promise<{ readonly files: FakeFiles; readonly store: PlainStore }> {
  const files = new FakeFiles()
  return { files, store: await openFakeStore(files, extras) }
}
