/**
 * Records that travel as bodies: cluster_info, epoch_log, counters, recovery state, disks
 * (protocol spec, section 10.1; cluster spec, section 3).
 */
import { readCString, writeCString } from '../../base/bytes.js'
import { Code, SheepError } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import { decodeNodes, encodeNodes, NODE_BYTES, type SdNode } from '../../model/node.js'
import { PEER_VERSION } from './frame.js'

export const CLUSTER_INFO_BYTES = 48 + NODE_BYTES * LIMITS.nodesMax
export const EPOCH_LOG_HEAD_BYTES = 48
export const STORE_NAME_BYTES = 16
export const RECOVERY_STATE_BYTES = 24
export const RECOVERY_THROTTLING_BYTES = 24
export const STAT_BYTES = 120
export const MD_INFO_BYTES = 263688
/** READ_VDIS: one bit a volume id. */
export const VID_BITMAP_BYTES = 2097152

/** Cluster status (cluster spec, section 4). */
export type ClusterStatus = 'ok' | 'wait' | 'shutdown' | 'killed'
const STATUS_NUMBERS: Record<ClusterStatus, number> = { ok: 1, wait: 2, shutdown: 3, killed: 4 }

export interface ClusterInfo {
  /** 0 in a request to join, 0x0a once accepted. */
  readonly version: number
  readonly recoveryDisabled: boolean
  readonly epoch: number
  readonly ctime: bigint
  readonly flags: number
  readonly copies: number
  readonly policy: number
  readonly status: ClusterStatus
  readonly blockSizeShift: number
  readonly store: string
  /** Ours, in padding: the newest epoch known in which every node had everything it owned. */
  readonly gathered?: number
  /** Ours, in padding: the newest epoch an administrator forced; what was missing then is given up. */
  readonly forced?: number
  /** The nodes of that epoch, sorted. */
  readonly nodes: readonly SdNode[]
}

const GATHERED_OFFSET = 44
/** 24 bits: how many epochs ago the forced one was, plus 1; 0 when there was none, or too long ago. */
const FORCED_OFFSET = 41

export const ACCEPTED_VERSION = PEER_VERSION

/** Only as long as the nodes need; receivers do not read further. */
export function encodeClusterInfo(info: ClusterInfo): Buffer {
  const head = Buffer.alloc(48)
  head[0] = info.version
  head[1] = info.recoveryDisabled ? 1 : 0
  head.writeInt16LE(info.nodes.length, 2)
  head.writeUInt32LE(info.epoch, 4)
  head.writeBigUInt64LE(info.ctime, 8)
  head.writeUInt16LE(info.flags, 16)
  head[18] = info.copies
  head[19] = info.policy
  head[20] = STATUS_NUMBERS[info.status]
  head[21] = info.blockSizeShift
  writeCString(head, 25, STORE_NAME_BYTES, info.store)
  head.writeUInt32LE(info.gathered ?? 0, GATHERED_OFFSET)
  head.writeUIntLE(forcedAgo(info), FORCED_OFFSET, 3)
  return Buffer.concat([head, encodeNodes(info.nodes)])
}

function forcedAgo({ epoch, forced = 0 }: ClusterInfo): number {
  const ago = epoch - forced + 1
  return forced > 0 && ago > 0 && ago < 2 ** 24 ? ago : 0
}

/** Throws RangeError when it is cut short or names a status nobody knows. */
export function decodeClusterInfo(from: Buffer): ClusterInfo {
  const count = from.readInt16LE(2)
  if (count < 0 || count > LIMITS.nodesMax || from.length < 48 + count * NODE_BYTES) {
    throw new RangeError(`cluster_info of ${from.length} bytes with ${count} nodes`)
  }
  const statuses = Object.keys(STATUS_NUMBERS) as ClusterStatus[]
  const status = statuses.find((name) => STATUS_NUMBERS[name] === from[20])
  if (status === undefined) throw new RangeError(`cluster_info with status ${from[20]}`)
  const gathered = from.readUInt32LE(GATHERED_OFFSET)
  const ago = from.readUIntLE(FORCED_OFFSET, 3)
  const epoch = from.readUInt32LE(4)
  return {
    version: from[0]!,
    recoveryDisabled: from[1] !== 0,
    epoch,
    ctime: from.readBigUInt64LE(8),
    flags: from.readUInt16LE(16),
    copies: from[18]!,
    policy: from[19]!,
    status,
    blockSizeShift: from[21]!,
    store: readCString(from, 25, STORE_NAME_BYTES),
    ...(gathered > 0 && { gathered }),
    ...(ago > 0 && ago <= epoch && { forced: epoch + 1 - ago }),
    nodes: decodeNodes(from, count, 48),
  }
}

export interface EpochLogRecord {
  /** 0 in all records of an answer but the first. */
  readonly ctime: bigint
  /** Unix seconds. */
  readonly time: number
  readonly epoch: number
  readonly recoveryDisabled: boolean
  readonly copies: number
  readonly policy: number
  readonly flags: number
  readonly store: string
  readonly nodes: readonly SdNode[]
}

/** `slots`: node slots of each record of the answer. Nodes beyond it must not be there. */
export function encodeEpochLogRecord(record: EpochLogRecord, slots: number): Buffer {
  const bytes = Buffer.alloc(EPOCH_LOG_HEAD_BYTES + slots * NODE_BYTES)
  bytes.writeBigUInt64LE(record.ctime, 0)
  bytes.writeBigUInt64LE(BigInt(record.time), 8)
  bytes.writeUInt32LE(record.epoch, 16)
  bytes.writeUInt32LE(record.nodes.length, 20)
  bytes[24] = record.recoveryDisabled ? 1 : 0
  bytes[25] = record.copies
  bytes[26] = record.policy
  bytes.writeUInt16LE(record.flags, 30)
  writeCString(bytes, 32, STORE_NAME_BYTES, record.store)
  encodeNodes(record.nodes.slice(0, slots)).copy(bytes, EPOCH_LOG_HEAD_BYTES)
  return bytes
}

export function decodeEpochLogRecord(from: Buffer, slots: number): EpochLogRecord {
  const count = Math.min(from.readUInt32LE(20), slots)
  return {
    ctime: from.readBigUInt64LE(0),
    time: Number(from.readBigUInt64LE(8)),
    epoch: from.readUInt32LE(16),
    recoveryDisabled: from[24] !== 0,
    copies: from[25]!,
    policy: from[26]!,
    flags: from.readUInt16LE(30),
    store: readCString(from, 32, STORE_NAME_BYTES),
    nodes: decodeNodes(from, count, EPOCH_LOG_HEAD_BYTES),
  }
}

export interface RecoveryState {
  readonly inRecovery: boolean
  /** 0 preparing the list, 1 recovering, 2 notifying. */
  readonly phase: number
  readonly finished: number
  readonly total: number
}

export function encodeRecoveryState(state: RecoveryState): Buffer {
  const bytes = Buffer.alloc(RECOVERY_STATE_BYTES)
  bytes[0] = state.inRecovery ? 1 : 0
  bytes.writeUInt32LE(state.phase, 4)
  bytes.writeBigUInt64LE(BigInt(state.finished), 8)
  bytes.writeBigUInt64LE(BigInt(state.total), 16)
  return bytes
}

export function decodeRecoveryState(from: Buffer): RecoveryState {
  return {
    inRecovery: from[0] !== 0,
    phase: from.readUInt32LE(4),
    finished: Number(from.readBigUInt64LE(8)),
    total: Number(from.readBigUInt64LE(16)),
  }
}

/** recovery_throttling: at most `max` objects begun in each interval and under way; both 0: off. */
export interface RecoveryThrottling {
  readonly max: number
  readonly intervalMs: number
}

export function encodeRecoveryThrottling({ max, intervalMs }: RecoveryThrottling): Buffer {
  const bytes = Buffer.alloc(RECOVERY_THROTTLING_BYTES)
  bytes.writeUInt32LE(max, 0)
  bytes.writeBigUInt64LE(BigInt(intervalMs), 8)
  bytes[16] = max > 0 && intervalMs > 0 ? 1 : 0
  return bytes
}

/** Throws RangeError for what is neither off nor two numbers a clock can work with. */
export function decodeRecoveryThrottling(from: Buffer): RecoveryThrottling {
  const max = from.readUInt32LE(0)
  const interval = from.readBigUInt64LE(8)
  if (interval > BigInt(Number.MAX_SAFE_INTEGER) || (max === 0) !== (interval === 0n)) {
    throw new RangeError(`recovery throttling of max ${max}, interval ${interval}`)
  }
  return { max, intervalMs: Number(interval) }
}

/** sd_stat: 15 counters in the order of the spec. */
export const STAT_FIELDS = [
  'gatewayActive',
  'peerActive',
  'gatewayTotal',
  'peerTotal',
  'gatewayReceivedBytes',
  'gatewaySentBytes',
  'peerReceivedBytes',
  'peerSentBytes',
  'gatewayRemoves',
  'gatewayReads',
  'gatewayWrites',
  'gatewayFlushes',
  'peerRemoves',
  'peerReads',
  'peerWrites',
] as const

export type Stat = Record<(typeof STAT_FIELDS)[number], number>

export function encodeStat(stat: Stat): Buffer {
  const bytes = Buffer.alloc(STAT_BYTES)
  STAT_FIELDS.forEach((name, i) => {
    bytes.writeBigUInt64LE(BigInt(stat[name]), 8 * i)
  })
  return bytes
}

/** Counters beyond 2^53 come out rounded. Throws RangeError when `from` is cut short. */
export function decodeStat(from: Buffer): Stat {
  const counters = STAT_FIELDS.map((name, i) => [name, Number(from.readBigUInt64LE(8 * i))])
  return Object.fromEntries(counters) as Stat
}

export interface DiskInfo {
  readonly index: number
  readonly freeBytes: number
  readonly usedBytes: number
  readonly path: string
}

const MD_RECORD_BYTES = 4120
const MD_RECORDS_MAX = 64

export function encodeMdInfo(disks: readonly DiskInfo[]): Buffer {
  const bytes = Buffer.alloc(MD_INFO_BYTES)
  const shown = disks.slice(0, MD_RECORDS_MAX)
  shown.forEach((disk, i) => {
    const at = i * MD_RECORD_BYTES
    bytes.writeInt32LE(disk.index, at)
    bytes.writeBigUInt64LE(BigInt(disk.freeBytes), at + 8)
    bytes.writeBigUInt64LE(BigInt(disk.usedBytes), at + 16)
    writeCString(bytes, at + 24, 4096, disk.path)
  })
  bytes.writeInt32LE(shown.length, MD_RECORDS_MAX * MD_RECORD_BYTES)
  return bytes
}

/** Throws a SheepError when it is none. */
export function decodeMdInfo(from: Buffer): DiskInfo[] {
  const count = from.length === MD_INFO_BYTES ? from.readInt32LE(MD_INFO_BYTES - 8) : -1
  if (count < 0 || count > MD_RECORDS_MAX) throw new SheepError(Code.INVALID_PARMS)
  return Array.from({ length: count }, (_, i) => {
    const at = i * MD_RECORD_BYTES
    return {
      index: from.readInt32LE(at),
      freeBytes: Number(from.readBigUInt64LE(at + 8)),
      usedBytes: Number(from.readBigUInt64LE(at + 16)),
      path: readCString(from, at + 24, 4096),
    }
  })
}
