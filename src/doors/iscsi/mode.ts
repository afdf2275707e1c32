/** Mode pages (SPC-4, 7.5; SBC-3, 6.5): what they say is what the unit does. */

import { writeLba64 } from '../../wire/scsi/cdb.js'
import { Asc, Opcode, SCSI_LIMITS, SenseKey } from '../../wire/scsi/constants.js'
import {
  BAD_LIST_LENGTH,
  check,
  GOOD,
  INVALID_FIELD,
  INVALID_PARAMETER,
  type Outcome,
} from '../../wire/scsi/sense.js'
import type { End, LogicalUnit } from './logical-unit.js'
import { type Command, end, type Issue, type Plan, reply } from './plan.js'

const CURRENT = 0
const CHANGEABLE = 1
const SAVED = 3

/** Whose values are asked for. */
interface Side {
  readonly control: number
  readonly unit: LogicalUnit
}

const ERROR_RECOVERY = 0x01
const CACHING = 0x08
const CONTROL = 0x0a
const EXCEPTIONS = 0x1c
const ALL = 0x3f

const WCE = 0x04
const SWP = 0x08

function page(code: number, length: number, fill?: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.alloc(2 + length)
  bytes[0] = code
  bytes[1] = length
  fill?.(bytes)
  return bytes
}

type Maker = (side: Side) => Buffer

const MAKERS = new Map<number, Maker>([
  [ERROR_RECOVERY, () => page(ERROR_RECOVERY, 0x0a)],
  [
    CACHING,
    ({ control, unit }) =>
      page(CACHING, 0x12, (bytes) => {
        // Read cache is always there. Default: writes are cached.
        const isOn = control === CURRENT ? unit.writeCache : true
        if (isOn) bytes[2] = WCE
      }),
  ],
  [
    CONTROL,
    ({ control, unit }) =>
      page(CONTROL, 0x0a, (bytes) => {
        if (control === CHANGEABLE) {
          bytes[4] = SWP
          return
        }
        // Simple commands may be reordered; aborted commands end with TASK ABORTED for the others.
        bytes[3] = 0x10
        bytes[5] = 0x40
        if (control === CURRENT && unit.isProtected) bytes[4] = SWP
        bytes.writeUInt16BE(0xffff, 8)
      }),
  ],
  [EXCEPTIONS, () => page(EXCEPTIONS, 0x0a)],
])

function sense(size: 6 | 10): Command {
  const usage6 = [0x1a, 0x08, 0xff, 0xff, 0xff, 0]
  return {
    ...{ name: `MODE SENSE(${size})`, access: 'read' },
    opcode: size === 6 ? Opcode.MODE_SENSE_6 : Opcode.MODE_SENSE_10,
    usage: size === 6 ? usage6 : [0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0],
    plan: (issue) => planSense(issue, size),
  }
}

function planSense({ unit, cdb }: Issue, size: 6 | 10): Plan {
  const [control, code, subpage] = [cdb[2]! >> 6, cdb[2]! & 0x3f, cdb[3]!]
  if (control === SAVED) return end(check(SenseKey.ILLEGAL_REQUEST, Asc.SAVING_NOT_SUPPORTED))
  if (subpage !== 0 && !(code === ALL && subpage === 0xff)) return end(INVALID_FIELD)
  const makers = code === ALL ? [...MAKERS.values()] : [MAKERS.get(code)]
  const pages = makers.map((make) => make?.({ control, unit }))
  const found = pages.filter((bytes) => bytes !== undefined)
  if (found.length !== pages.length) return end(INVALID_FIELD)
  const hasLong = size === 10 && (cdb[1]! & 0x10) !== 0
  const block = (cdb[1]! & 0x08) !== 0 ? Buffer.alloc(0) : blockDescriptor(unit, hasLong)
  const headBytes = size === 6 ? 4 : 8
  const head = Buffer.alloc(headBytes)
  const isProtected = unit.readOnly || unit.isProtected
  // DPOFUA: both are understood.
  const specific = 0x10 | (isProtected ? 0x80 : 0)
  const body = Buffer.concat([block, ...found])
  if (size === 6) {
    head[0] = headBytes - 1 + body.length
    head[2] = specific
    head[3] = block.length
  } else {
    head.writeUInt16BE(headBytes - 2 + body.length, 0)
    head[3] = specific
    head[4] = block.length === 16 ? 1 : 0
    head.writeUInt16BE(block.length, 6)
  }
  return reply(Buffer.concat([head, body]), size === 6 ? cdb[4]! : cdb.readUInt16BE(7))
}

function blockDescriptor(unit: LogicalUnit, isLong: boolean): Buffer {
  const bytes = Buffer.alloc(isLong ? 16 : 8)
  if (isLong) {
    writeLba64(bytes, 0, unit.blocks)
    bytes.writeUInt32BE(unit.blockBytes, 12)
  } else {
    bytes.writeUInt32BE(Math.min(unit.blocks, 0xffffffff), 0)
    bytes.writeUIntBE(unit.blockBytes, 5, 3)
  }
  return bytes
}

function select(size: 6 | 10): Command {
  return {
    ...{ name: `MODE SELECT(${size})`, access: 'write' },
    opcode: size === 6 ? Opcode.MODE_SELECT_6 : Opcode.MODE_SELECT_10,
    usage: size === 6 ? [0x15, 0x11, 0, 0, 0xff, 0] : [0x55, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0],
    plan: ({ unit, nexus, cdb }) => {
      const bytes = size === 6 ? cdb[4]! : cdb.readUInt16BE(7)
      // Page format; nothing is saved.
      if ((cdb[1]! & 0x11) !== 0x10) return end(INVALID_FIELD)
      if (bytes === 0) return end(GOOD)
      if (bytes > SCSI_LIMITS.parameterBytesMax) return end(INVALID_FIELD)
      const run = (data: Buffer, ended: End): void => apply(unit, nexus, data, size, ended)
      return { kind: 'take', bytes, run }
    },
  }
}

/** All pages are looked at before any counts. */
function apply(unit: LogicalUnit, nexus: string, data: Buffer, size: 6 | 10, ended: End): void {
  const wish = { writeCache: unit.writeCache, isProtected: unit.isProtected }
  const refusal = readPages(unit, data, size, wish)
  if (refusal !== undefined) {
    ended(refusal)
    return
  }
  const isNews = wish.writeCache !== unit.writeCache || wish.isProtected !== unit.isProtected
  if (isNews) unit.tellOthers(nexus, Asc.MODE_CHANGED)
  const wasCached = unit.writeCache
  unit.writeCache = wish.writeCache
  unit.isProtected = wish.isProtected
  // Who turns the cache off means what is in it, too.
  if (wasCached && !wish.writeCache) unit.flush(ended)
  else ended(GOOD)
}

interface Wish {
  writeCache: boolean
  isProtected: boolean
}

function readPages(unit: LogicalUnit, data: Buffer, size: 6 | 10, wish: Wish): Outcome | undefined {
  const headBytes = size === 6 ? 4 : 8
  if (data.length < headBytes) return BAD_LIST_LENGTH
  const blockBytes = size === 6 ? data[3]! : data.readUInt16BE(6)
  let at = headBytes + blockBytes
  if (at > data.length) return BAD_LIST_LENGTH
  while (at < data.length) {
    if (at + 2 > data.length) return BAD_LIST_LENGTH
    const code = data[at]! & 0x3f
    const length = 2 + data[at + 1]!
    if (at + length > data.length) return BAD_LIST_LENGTH
    const make = (data[at]! & 0x40) === 0 ? MAKERS.get(code) : undefined
    const given = data.subarray(at, at + length)
    if (make === undefined) return INVALID_PARAMETER
    const [now, mask] = [make({ control: CURRENT, unit }), make({ control: CHANGEABLE, unit })]
    if (now.length !== given.length) return INVALID_PARAMETER
    // Only what may change differs from what is.
    for (let i = 2; i < length; i++) {
      const free = code === ERROR_RECOVERY || code === EXCEPTIONS ? 0 : mask[i]!
      if (((now[i]! ^ given[i]!) & ~free) !== 0) return INVALID_PARAMETER
    }
    if (code === CACHING) wish.writeCache = (given[2]! & WCE) !== 0
    if (code === CONTROL) wish.isProtected = (given[4]! & SWP) !== 0
    at += length
  }
  return undefined
}

export const MODE_COMMANDS: readonly Command[] = [sense(6), sense(10), select(6), select(10)]
