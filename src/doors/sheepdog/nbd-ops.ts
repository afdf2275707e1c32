/** What the NBD door of this daemon has served, and whom it serves. */
import { Code } from '../../base/codes.js'
import { type Answer, failed, type Reply } from '../../sheep/answer.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import {
  encodeNbdRecord,
  firstIdOf,
  NBD_RECORD_BYTES_MAX,
  setNbdStatisticsReply,
} from '../../wire/sheepdog/nbd-statistics.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import type { DoorContext, NbdFigures, OperationTable } from './context.js'

/** Records of one page, so that a question costs little however many connections there are. */
const PAGE_RECORDS_MAX = 256

/** The page of figures that was asked for. */
export function pageOf(nbd: NbdFigures, request: Frame): Answer {
  const firstId = firstIdOf(request)
  if (firstId === undefined) return failed(Code.INVALID_PARMS)
  if (request.dataLength < NBD_RECORD_BYTES_MAX) return failed(Code.BUFFER_SMALL)
  const records = nbd.records(firstId, PAGE_RECORDS_MAX + 1)
  const pieces: Buffer[] = []
  let bytes = 0
  for (const record of records.slice(0, PAGE_RECORDS_MAX)) {
    const piece = encodeNbdRecord(record)
    if (bytes + piece.length > request.dataLength) break
    pieces.push(piece)
    bytes += piece.length
  }
  const nextId = records[pieces.length]?.id ?? 0
  const fill = (head: Buffer): void => void setNbdStatisticsReply(head, nextId)
  return { result: Code.SUCCESS, body: Buffer.concat(pieces), fill }
}

function statistics({ nbd }: DoorContext, request: Frame, reply: Reply): void {
  reply(pageOf(nbd, request))
}

export const NBD_OPERATIONS: OperationTable = new Map([
  [Op.NBD_STATISTICS, { force: true, isHarmless: true, run: statistics }],
])
