/** Requests about extended attributes of a node. */
import { Errno } from '../wire/fuse/constants.js'
import { encodeXattrSize } from '../wire/fuse/replies.js'
import {
  decodeGetXattr,
  decodeListXattr,
  decodeName,
  decodeSetXattr,
} from '../wire/fuse/requests.js'
import { FsError } from './errors.js'
import type { TreeNode } from './node.js'

/** Of a name space nothing here has: `ls -l` asks for three such of every file it lists. */
export function isForeign(getXattrBytes: Buffer): boolean {
  return !decodeGetXattr(getXattrBytes).name.startsWith('user.')
}

export async function getXattr({ xattrs }: TreeNode, bytes: Buffer): Promise<Uint8Array> {
  const { size, name } = decodeGetXattr(bytes)
  const value = await xattrs?.get(name)
  if (value === undefined) throw new FsError(Errno.ENODATA)
  return sized(value, size)
}

export async function listXattr({ xattrs }: TreeNode, bytes: Buffer): Promise<Uint8Array> {
  const size = decodeListXattr(bytes)
  const names = (await xattrs?.list()) ?? []
  return sized(Buffer.from(names.map((name) => `${name}\0`).join('')), size)
}

export async function setXattr({ xattrs }: TreeNode, bytes: Buffer): Promise<undefined> {
  const { name, value, flags } = decodeSetXattr(bytes)
  if (xattrs === undefined) throw new FsError(Errno.EOPNOTSUPP)
  await xattrs.set(name, value, flags === 1 ? 'create' : flags === 2 ? 'replace' : 'any')
}

export async function removeXattr({ xattrs }: TreeNode, bytes: Buffer): Promise<undefined> {
  const name = decodeName(bytes)
  if (xattrs === undefined) throw new FsError(Errno.ENODATA)
  await xattrs.remove(name)
}

/** Asked with size 0 only the size is told. */
function sized(value: Buffer, size: number): Uint8Array {
  if (size === 0) return encodeXattrSize(value.length)
  if (value.length > size) throw new FsError(Errno.ERANGE)
  return value
}
