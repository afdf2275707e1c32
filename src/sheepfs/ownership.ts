/** Owners and modes are those of the mount: who asks for what they are is told yes, who asks for something else no. */
import { Errno, SetAttr } from '../wire/fuse/constants.js'
import type { Attr } from '../wire/fuse/replies.js'
import type { SetAttrRequest } from '../wire/fuse/requests.js'
import { FsError } from './errors.js'

const PERMISSIONS = 0o7777

/** Throws EPERM for a change: a `chmod 600` that changes nothing would be trusted. */
export function refuseOwnership(request: SetAttrRequest, now: Attr): void {
  const asked = (bit: number): boolean => (request.valid & bit) !== 0
  const isChange =
    (asked(SetAttr.UID) && request.uid !== now.uid) ||
    (asked(SetAttr.GID) && request.gid !== now.gid) ||
    (asked(SetAttr.MODE) && (request.mode & PERMISSIONS) !== (now.mode & PERMISSIONS))
  if (isChange) throw new FsError(Errno.EPERM)
}
