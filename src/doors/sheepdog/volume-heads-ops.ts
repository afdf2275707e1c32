/** Headers of inodes in pages, for who looks at all volumes (wire/sheepdog/volume-heads.ts). */
import { Code } from '../../base/codes.js'
import { inodeOid, VID_LIMIT } from '../../model/oid.js'
import { failed, type Reply } from '../../sheep/answer.js'
import type { Caller } from '../../sheep/caller.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import { HEAD_BYTES, setVolumeHeadsReply, volumeRangeOf } from '../../wire/sheepdog/volume-heads.js'
import type { OperationContext, OperationTable } from './context.js'

/** What is read in one turn of the event loop. */
const PAGE_HEADS_MAX = 64

function volumeHeads(
  { node }: OperationContext,
  request: Frame,
  reply: Reply,
  caller: Caller,
): void {
  const { first, end } = volumeRangeOf(request)
  const room = Math.min(PAGE_HEADS_MAX, Math.floor(request.dataLength / HEAD_BYTES))
  if (first > end || end > VID_LIMIT || room === 0) {
    reply(failed(Code.INVALID_PARMS))
    return
  }
  const { vids, next } = node.state.vids.livingFrom({ first, end }, room)
  const found: (Buffer | undefined)[] = []
  let open = 1
  let worst: Code = Code.SUCCESS
  const ended = (): void => {
    if (--open > 0) return
    const body = Buffer.concat(found.filter((head) => head !== undefined))
    const fill = (head: Buffer): void => void setVolumeHeadsReply(head, next)
    reply(worst === Code.SUCCESS ? { result: worst, body, fill } : failed(worst))
  }
  vids.forEach((vid, i) => {
    open++
    const head = Buffer.alloc(HEAD_BYTES)
    const ref = node.gateway.ref(inodeOid(vid), () => !caller.isGone)
    node.gateway.read(ref, 0, head, (code) => {
      if (code === Code.SUCCESS) found[i] = head
      else if (code !== Code.NO_OBJ) worst = code
      ended()
    })
  })
  ended()
}

export const VOLUME_HEADS_OPERATIONS: OperationTable = new Map([
  [Op.VOLUME_HEADS, { force: false, isHarmless: true, run: volumeHeads }],
])
