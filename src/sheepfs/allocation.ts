/** Modes of fallocate(2). */
import {
  Errno,
  FALLOC_KEEP_SIZE,
  FALLOC_PUNCH_HOLE,
  FALLOC_ZERO_RANGE,
} from '../wire/fuse/constants.js'
import { FsError } from './errors.js'
import type { Allocation } from './node.js'

/** Throws EOPNOTSUPP for what no volume can do. */
export function allocationOf(mode: number): Allocation {
  const keepSize = (mode & FALLOC_KEEP_SIZE) !== 0
  const rest = mode & ~FALLOC_KEEP_SIZE
  if (rest === 0) return { kind: 'reserve', keepSize }
  if (rest === FALLOC_ZERO_RANGE) return { kind: 'zero', keepSize }
  // The kernel lets a hole be made with the size kept only.
  if (rest === FALLOC_PUNCH_HOLE) return { kind: 'punch', keepSize: true }
  throw new FsError(Errno.EOPNOTSUPP)
}
