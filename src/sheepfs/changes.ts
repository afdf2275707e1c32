/** What users do to VDIs by making, resizing and removing files: requests as dog makes them. */
import { cString } from '../base/bytes.js'
import { Code, SheepError } from '../base/codes.js'
import { type InodeHeader, NAME_BYTES, SIZE_OFFSET, TAG_OFFSET } from '../model/inode.js'
import { inodeOid, type Vid } from '../model/oid.js'
import type { RemoteAccess } from '../remote/remote-access.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { decodeVdiReply } from '../wire/sheepdog/replies.js'
import { objectRequest, vdiRequest } from '../wire/sheepdog/requests.js'

async function writeInode(
  access: RemoteAccess,
  vid: Vid,
  offset: number,
  data: Buffer,
): Promise<void> {
  const head = objectRequest({
    ...{ opcode: Op.WRITE_OBJ, flags: Flag.WRITE | Flag.DIRECT, dataLength: data.length },
    ...{ oid: inodeOid(vid), offset },
  })
  await access.call(head, data)
}

/** Of the working VDI, which a snapshot may replace at any moment. */
export async function writeSize(
  access: RemoteAccess,
  name: string,
  sizeBytes: number,
): Promise<void> {
  const data = Buffer.alloc(8)
  data.writeBigUInt64LE(BigInt(sizeBytes))
  for (;;) {
    const vid = await access.find(name, { kind: 'working' })
    await writeInode(access, vid, SIZE_OFFSET, data)
    const { sizeBytes: found } = await access.readHeader(
      await access.find(name, { kind: 'working' }),
    )
    if (found === sizeBytes) return
  }
}

/** In the cluster's default format. Rejects with VDI_EXIST. */
export async function createVdi(access: RemoteAccess, name: string): Promise<Vid> {
  const payload = cString(name, NAME_BYTES)
  const head = vdiRequest({
    ...{ opcode: Op.NEW_VDI, flags: Flag.WRITE, dataLength: payload.length },
    sizeBytes: 0,
  })
  return decodeVdiReply(await access.call(head, payload, 'once')).vid
}

/** `snapId` 0: the working VDI. Rejects with VDI_LOCKED while somebody has it. */
export async function deleteVdi(access: RemoteAccess, name: string, snapId: number): Promise<void> {
  const payload = Buffer.concat([cString(name, NAME_BYTES), cString('', NAME_BYTES)])
  const head = vdiRequest({
    ...{ opcode: Op.DEL_VDI, flags: Flag.WRITE, dataLength: payload.length, snapId },
  })
  await access.call(head, payload, 'once')
}

/** Another tag for a snapshot: one write within a sector, so that it has the old one or the new one. */
export async function retagSnapshot(
  access: RemoteAccess,
  { vid }: InodeHeader,
  tag: string,
): Promise<void> {
  await writeInode(access, vid, TAG_OFFSET, cString(tag, NAME_BYTES))
}

/** Tags the working VDI, then asks for its successor, which turns it into the snapshot. */
export async function takeSnapshot(
  access: RemoteAccess,
  header: InodeHeader,
  tag: string,
): Promise<void> {
  const { name, vid, sizeBytes, blockSizeShift, copies, policy } = header
  if (header.storePolicy !== 0) throw new SheepError(Code.NO_SUPPORT, 'of a hypervolume')
  const writeTag = (text: string): Promise<void> =>
    writeInode(access, vid, TAG_OFFSET, cString(text, NAME_BYTES))
  await writeTag(tag)
  const payload = cString(name, NAME_BYTES)
  const head = vdiRequest({
    ...{ opcode: Op.NEW_VDI, flags: Flag.WRITE, dataLength: payload.length },
    ...{ sizeBytes, base: vid, snapId: 1, copies, policy, blockSizeShift },
  })
  try {
    await access.call(head, payload, 'once')
  } catch (error) {
    // Without an answer the snapshot may exist, and then the tag is its own.
    const isUnknown = error instanceof SheepError && error.code === Code.NETWORK_ERROR
    if (!isUnknown) await writeTag(header.tag)
    throw error
  }
}
