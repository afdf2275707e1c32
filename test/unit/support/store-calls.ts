/** A store's callback operations as promises, and objects to use them on. */
import type { Code, Done } from '../../../src/base/codes.js'
import {
  dataOid,
  fragmentId,
  inodeOid,
  ledgerOid,
  type Oid,
  type StoredId,
  type Vid,
} from '../../../src/model/oid.js'
import type { ObjectStore } from '../../../src/store/object-store.js'

export const OBJECT_BYTES = 4 * 1024 * 1024
export const VID = 0xa03907 as Vid
export const OTHER_VID = 0x7c2b25 as Vid
export const INODE = inodeOid(VID)

export function data(index: number, vid: Vid = VID): Oid {
  return dataOid(vid, index)
}

export const LEDGER = ledgerOid(data(0))

export function promised(call: (done: Done) => void): Promise<Code> {
  return new Promise((resolve) => call(resolve))
}

export interface CreateExtras {
  readonly bytes?: number
  readonly offset?: number
  readonly fragment?: number
}

/** `fragment`: index of a fragment of the object, -1 for its replica. */
function nameOf(oid: Oid, fragment: number): StoredId {
  return fragment < 0 ? oid : fragmentId(oid, fragment)
}

export function create(
  store: ObjectStore,
  oid: Oid,
  content: Uint8Array | string,
  extras: CreateExtras = {},
): Promise<Code> {
  const { bytes = OBJECT_BYTES, offset = 0, fragment = -1 } = extras
  return promised((done) =>
    store.create({ id: nameOf(oid, fragment), bytes, offset, data: Buffer.from(content) }, done),
  )
}

export function write(
  store: ObjectStore,
  id: StoredId,
  offset: number,
  content: Uint8Array | string,
  durable = false,
): Promise<Code> {
  return promised((done) => store.write(id, offset, Buffer.from(content), { durable }, done))
}

/** The bytes, or the code when it is not SUCCESS. The buffer is dirty before, so that gaps show. */
export async function read(
  store: ObjectStore,
  id: StoredId,
  offset: number,
  length: number,
): Promise<Buffer | Code> {
  const into = Buffer.alloc(length, 0xee)
  const code = await promised((done) => store.read(id, offset, into, done))
  return code === 0 ? into : code
}

export async function text(
  store: ObjectStore,
  id: StoredId,
  length: number,
): Promise<string | Code> {
  const found = await read(store, id, 0, length)
  return typeof found === 'number' ? found : found.toString('latin1')
}

export function remove(store: ObjectStore, id: StoredId): Promise<Code> {
  return promised((done) => store.remove(id, done))
}

export function flush(store: ObjectStore, vid: Vid = VID): Promise<Code> {
  return promised((done) => store.flush(vid, done))
}

/** Lets everything that can go on go on. */
export async function settle(turns = 20): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve))
}
