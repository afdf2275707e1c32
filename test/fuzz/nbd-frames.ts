/**
 * What NBD clients say from the greeting to the end, as libnbd, QEMU, nbd-client and the kernel do it, and the same bent out of
 * shape: options and requests out of order, fields at their limits, flipped bits, lengths that lie, cut ends.
 */
import {
  Command,
  CommandFlag,
  EXTENDED_REQUEST_MAGIC,
  Option,
  REQUEST_MAGIC,
} from '../../src/wire/nbd/constants.js'
import type { Dice } from '../faults/dice.js'
import {
  type Ask,
  ask,
  askExtended,
  infoData,
  metaData,
  option,
  u32,
  u64,
} from '../unit/support/nbd-rig.js'

/** Frames of one connection, in order: client flags, options, requests. */
export type NbdCapture = readonly Buffer[]

export const EXPORT = 'v'

const { READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS } = Command
const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN } = CommandFlag

const REQUESTS: readonly Ask[] = [
  { type: WRITE, cookie: 1, offset: 5, data: Buffer.alloc(500, 1) },
  { type: READ, cookie: 2, offset: 5, length: 500 },
  { type: WRITE, cookie: 3, flags: FUA, offset: 65_536, data: Buffer.alloc(4096, 2) },
  { type: READ, cookie: 4, length: 66_000 },
  { type: READ, cookie: 5, flags: DF, offset: 512, length: 700 },
  { type: FLUSH, cookie: 6 },
  { type: TRIM, cookie: 7, flags: FUA, offset: 4096, length: 8192 },
  { type: WRITE_ZEROES, cookie: 8, flags: NO_HOLE, offset: 100, length: 100 },
  { type: WRITE_ZEROES, cookie: 9, flags: FAST_ZERO, offset: 0, length: 65_536 },
  { type: CACHE, cookie: 10, length: 10_000 },
  { type: BLOCK_STATUS, cookie: 11, length: 262_144 },
  { type: BLOCK_STATUS, cookie: 12, flags: REQ_ONE, offset: 4096, length: 4096 },
  { type: READ, cookie: 13, offset: 262_144, length: 0 },
]

const STATUS_PAYLOAD = Buffer.concat([u64(65_536), u32(1)])
const EXTENDED_REQUESTS: readonly Ask[] = [
  ...REQUESTS.map((request) =>
    request.type === WRITE ? { ...request, flags: (request.flags ?? 0) | PAYLOAD_LEN } : request,
  ),
  { type: BLOCK_STATUS, cookie: 14, flags: PAYLOAD_LEN, data: STATUS_PAYLOAD },
]

const CONTEXTS = metaData(EXPORT, 'base:allocation', 'qemu:allocation-depth')
const go = option(Option.GO, infoData(EXPORT, 1, 2, 3))
const structured = option(Option.STRUCTURED_REPLY)
const bye = [ask({ type: DISC })]

export const NBD_CAPTURES: readonly NbdCapture[] = [
  // nbd-client before 3.10 and old kernels: no fixed newstyle, no options, simple replies.
  [
    u32(0),
    option(Option.EXPORT_NAME, Buffer.from(EXPORT)),
    ...REQUESTS.slice(0, 4).map(ask),
    ...bye,
  ],
  [u32(3), go, ...REQUESTS.map(ask), ...bye],
  // QEMU.
  [
    ...[u32(3), structured, option(Option.SET_META_CONTEXT, CONTEXTS), go],
    ...REQUESTS.map(ask),
    ...bye,
  ],
  // libnbd with all there is.
  [
    ...[u32(3), option(Option.STARTTLS), option(Option.EXTENDED_HEADERS), structured],
    ...[option(Option.LIST), option(Option.LIST_META_CONTEXT, metaData(EXPORT))],
    ...[option(Option.SET_META_CONTEXT, CONTEXTS), option(Option.INFO, infoData(EXPORT)), go],
    ...EXTENDED_REQUESTS.map(askExtended),
    askExtended({ type: DISC }),
  ],
  // Names that are not there, and the only one by no name.
  [
    ...[u32(1), option(Option.INFO, infoData('nobody', 3)), option(Option.GO, infoData(''))],
    ...[option(4711, Buffer.alloc(300)), ask({ type: READ, length: 10 })],
  ],
  [u32(3), option(Option.LIST), option(Option.ABORT)],
]

const CURIOUS: readonly bigint[] = [
  ...[0n, 1n, 2n, 3n, 7n, 27n, 28n, 31n, 32n, 33n, 255n, 256n, 4095n, 4096n, 4097n],
  ...[65_535n, 65_536n, 262_143n, 262_144n, 262_145n, 1n << 20n, 1n << 25n, (1n << 25n) + 1n],
  ...[0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, 1n << 53n, (1n << 63n) - 1n, (1n << 64n) - 1n],
]
const WIDTHS = [1, 2, 4, 8] as const
const HEAD_BYTES = 40
const BODY_BYTES_MAX = 600

/** A frame of a capture, perhaps with something wrong about it; `isMild`: it stays as long as it is. */
function mutated(frame: Buffer, dice: Dice, isMild: boolean): Buffer {
  if (dice.below(10) < 5) return frame
  let bytes: Buffer = Buffer.from(frame)
  if (isMild) {
    // Behind the magic and before a request's length: the next frame is found as well.
    setField(bytes, 4 + dice.below(13), dice)
    return bytes
  }
  const times = 1 + dice.below(3)
  for (let i = 0; i < times; i++) bytes = bend(bytes, dice)
  return bytes
}

function bend(bytes: Buffer, dice: Dice): Buffer {
  switch (dice.below(10)) {
    case 0:
    case 1:
    case 2:
    case 3:
      // Behind the magic, so that more than the first look is tried.
      setField(bytes, 4 + dice.below(HEAD_BYTES), dice)
      return bytes
    case 4:
      setField(bytes, dice.below(HEAD_BYTES), dice)
      return bytes
    case 5:
      bytes[dice.below(bytes.length)]! ^= 1 << dice.below(8)
      return bytes
    case 6:
      return bytes.subarray(0, Math.max(1, dice.below(bytes.length)))
    case 7:
      return Buffer.concat([bytes, Buffer.alloc(dice.below(BODY_BYTES_MAX), dice.below(256))])
    case 8:
      return option(dice.below(12), bytes.subarray(0, dice.below(bytes.length)))
    default:
      return Buffer.concat([bytes, bytes])
  }
}

function setField(bytes: Buffer, at: number, dice: Dice): void {
  const width = dice.pick(WIDTHS)
  if (at + width > bytes.length) return
  const value = BigInt.asUintN(8 * width, dice.pick(CURIOUS))
  if (width === 8) bytes.writeBigUInt64BE(value, at)
  else bytes.writeUIntBE(Number(value), at, width)
}

function isRequest(frame: Buffer): boolean {
  const magic = frame.readUInt32BE(0)
  return magic === REQUEST_MAGIC || magic === EXTENDED_REQUEST_MAGIC
}

/** What one connection brings: a capture from its beginning, mostly as it is until transmission. */
export function* nbdConversation(dice: Dice, frames: number): Generator<Buffer> {
  const capture = dice.pick(NBD_CAPTURES)
  // Neither options, which end a connection in transmission, nor the goodbye.
  const requests = capture.slice(0, -1).filter(isRequest)
  // What breaks the framing ends the connection: most of them shall see more than that.
  const isMild = dice.below(4) > 0
  for (let i = 0; i < frames; i++) {
    const isLast = i === frames - 1
    const isThrough = i >= capture.length - 1
    const more = dice.pick(requests.length > 0 ? requests : capture)
    const frame = isLast ? capture.at(-1)! : isThrough ? more : capture[i]!
    // Mostly the handshake comes through, or the requests would never be tried.
    const isKept = !isThrough && dice.below(8) > 0
    yield isKept ? frame : mutated(frame, dice, isMild)
  }
}
