/**
 * NBD_STATISTICS, a request of ours (sheepdog 1.0 has no handler for its number, 0xd0): what the NBD door of one sheep has
 * served and whom it serves, in pages.
 *
 *   request:   16 first id u64
 *   reply:     24 first id of the next page u64, 0 at the end; records in the body, in the order of their ids
 *   record:    0 length u32 | 4 kind u8 | 5 flags u8 | 6 zero u16 | 8 id u64 | 16 since u64 (ms) | 24 connections u32
 *              28 in flight u32 | 32 errors u64 | 40 operations 8 * u64 | 104 bytes 8 * u64 | 168 lengths of name and
 *              client 2 * u16 | name | client
 *
 * Ids grow and are never used again: what comes and goes between two pages does not move the others. Operations and bytes
 * stand in the order of NBD's command numbers.
 */
import { encodeText, readCString } from '../../base/bytes.js'
import type { Frame } from './frame.js'
import { Op } from './opcodes.js'
import { plainRequest } from './requests.js'

export const NBD_COMMANDS = 8
const FIXED_BYTES = 172
/** Room for one record at least: a name of the protocol's longest, and a client's address. */
export const NBD_RECORD_BYTES_MAX = FIXED_BYTES + 4096 + 256

const Kind = { EXPORT: 1, CONNECTION: 2 } as const
const RecordFlag = { TLS: 1, STRUCTURED: 2, EXTENDED: 4, READ_ONLY: 8, OPEN: 16 } as const

export interface NbdCounters {
  /** Requests begun, by NBD command number. */
  readonly operations: readonly number[]
  /** Bytes of their ranges. */
  readonly bytes: readonly number[]
  /** Requests answered with an error, refused ones among them. */
  readonly errors: number
}

interface Common {
  readonly id: number
  /** Milliseconds since the Unix epoch: when it was first opened, or connected. */
  readonly sinceMs: number
  readonly requestsInFlight: number
  readonly counters: NbdCounters
}

export interface NbdExportRecord extends Common {
  readonly kind: 'export'
  readonly name: string
  readonly connections: number
}

export interface NbdConnectionRecord extends Common {
  readonly kind: 'connection'
  /** Undefined during the handshake. */
  readonly exportName: string | undefined
  /** `127.0.0.1:40312` or `unix`. */
  readonly client: string
  readonly tls: boolean
  readonly structured: boolean
  readonly extended: boolean
  readonly readOnly: boolean
}

export type NbdRecord = NbdExportRecord | NbdConnectionRecord

export function nbdStatisticsRequest(firstId: number, room: number): Buffer {
  const head = plainRequest({ opcode: Op.NBD_STATISTICS, dataLength: room })
  head.writeBigUInt64LE(BigInt(firstId), 16)
  return head
}

/** Undefined: no number that counts. */
export function firstIdOf(request: Frame): number | undefined {
  return countOf(request.head, 16)
}

export function setNbdStatisticsReply(head: Buffer, nextId: number): Buffer {
  head.writeBigUInt64LE(BigInt(nextId), 24)
  return head
}

/** Where the next page begins; 0: there is none. */
export function nextIdOf(reply: Frame): number {
  return countOf(reply.head, 24) ?? 0
}

export function encodeNbdRecord(record: NbdRecord): Buffer {
  const isExport = record.kind === 'export'
  const name = encodeText(isExport ? record.name : (record.exportName ?? ''))
  const client = encodeText(isExport ? '' : record.client)
  const bytes = Buffer.alloc(FIXED_BYTES + name.length + client.length)
  bytes.writeUInt32LE(bytes.length, 0)
  bytes[4] = isExport ? Kind.EXPORT : Kind.CONNECTION
  bytes[5] = isExport ? 0 : flagsOf(record)
  bytes.writeBigUInt64LE(BigInt(record.id), 8)
  bytes.writeBigUInt64LE(BigInt(Math.floor(record.sinceMs)), 16)
  bytes.writeUInt32LE(isExport ? record.connections : 0, 24)
  bytes.writeUInt32LE(record.requestsInFlight, 28)
  const { errors, operations, bytes: moved } = record.counters
  bytes.writeBigUInt64LE(BigInt(errors), 32)
  for (let i = 0; i < NBD_COMMANDS; i++) {
    bytes.writeBigUInt64LE(BigInt(operations[i] ?? 0), 40 + 8 * i)
    bytes.writeBigUInt64LE(BigInt(moved[i] ?? 0), 104 + 8 * i)
  }
  bytes.writeUInt16LE(name.length, 168)
  bytes.writeUInt16LE(client.length, 170)
  name.copy(bytes, FIXED_BYTES)
  client.copy(bytes, FIXED_BYTES + name.length)
  return bytes
}

/** Undefined: that is no page of records. Kinds it does not know are passed over. */
export function decodeNbdRecords(body: Buffer): NbdRecord[] | undefined {
  const records: NbdRecord[] = []
  for (let at = 0; at < body.length; ) {
    if (body.length - at < FIXED_BYTES) return undefined
    const length = body.readUInt32LE(at)
    if (length < FIXED_BYTES || length > body.length - at) return undefined
    const record = decodeRecord(body.subarray(at, at + length))
    if (record === 'malformed') return undefined
    if (record !== undefined) records.push(record)
    at += length
  }
  return records
}

function decodeRecord(bytes: Buffer): NbdRecord | 'malformed' | undefined {
  const [kind, flags] = [bytes[4]!, bytes[5]!]
  const [nameLength, clientLength] = [bytes.readUInt16LE(168), bytes.readUInt16LE(170)]
  if (FIXED_BYTES + nameLength + clientLength > bytes.length) return 'malformed'
  const name = readCString(bytes, FIXED_BYTES, nameLength)
  const common: Common = {
    id: Number(bytes.readBigUInt64LE(8)),
    sinceMs: Number(bytes.readBigUInt64LE(16)),
    requestsInFlight: bytes.readUInt32LE(28),
    counters: {
      operations: numbersAt(bytes, 40),
      bytes: numbersAt(bytes, 104),
      errors: Number(bytes.readBigUInt64LE(32)),
    },
  }
  if (kind === Kind.EXPORT) {
    return { kind: 'export', name, connections: bytes.readUInt32LE(24), ...common }
  }
  if (kind !== Kind.CONNECTION) return undefined
  return {
    kind: 'connection',
    exportName: (flags & RecordFlag.OPEN) === 0 ? undefined : name,
    client: readCString(bytes, FIXED_BYTES + nameLength, clientLength),
    tls: (flags & RecordFlag.TLS) !== 0,
    structured: (flags & RecordFlag.STRUCTURED) !== 0,
    extended: (flags & RecordFlag.EXTENDED) !== 0,
    readOnly: (flags & RecordFlag.READ_ONLY) !== 0,
    ...common,
  }
}

function flagsOf(record: NbdConnectionRecord): number {
  const { tls, structured, extended, readOnly, exportName } = record
  const flag = RecordFlag
  return (
    (tls ? flag.TLS : 0) |
    (structured ? flag.STRUCTURED : 0) |
    (extended ? flag.EXTENDED : 0) |
    (readOnly ? flag.READ_ONLY : 0) |
    (exportName === undefined ? 0 : flag.OPEN)
  )
}

function numbersAt(bytes: Buffer, at: number): number[] {
  return Array.from({ length: NBD_COMMANDS }, (_, i) => Number(bytes.readBigUInt64LE(at + 8 * i)))
}

function countOf(head: Buffer, at: number): number | undefined {
  const value = Number(head.readBigUInt64LE(at))
  return Number.isSafeInteger(value) ? value : undefined
}
