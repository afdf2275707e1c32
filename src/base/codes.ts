/**
 * The one table of outcomes. A code is the number the sheepdog protocol uses for it
 * (protocol spec, section 6); doors translate at their edge, nobody compares messages.
 */

/** What a caller inside the cluster may do about a code. */
type Retry = 'never' | 'newEpoch' | 'backOff'

interface CodeRow {
  readonly name: string
  /** The sentence sheepdog 1.0's tools print. */
  readonly text: string
  readonly retry: Retry
  /** NBD error value (NBD protocol, "Error values"). */
  readonly nbd: number
}

const NBD_EPERM = 1
const NBD_EIO = 5
const NBD_ENOMEM = 12
const NBD_EINVAL = 22
const NBD_ENOSPC = 28
const NBD_ENOTSUP = 95
const NBD_ESHUTDOWN = 108

export const Code = {
  SUCCESS: 0x00,
  UNKNOWN: 0x01,
  NO_OBJ: 0x02,
  EIO: 0x03,
  VDI_EXIST: 0x04,
  INVALID_PARMS: 0x05,
  SYSTEM_ERROR: 0x06,
  VDI_LOCKED: 0x07,
  NO_VDI: 0x08,
  NO_BASE_VDI: 0x09,
  VDI_READ: 0x0a,
  VDI_WRITE: 0x0b,
  BASE_VDI_READ: 0x0c,
  BASE_VDI_WRITE: 0x0d,
  NO_TAG: 0x0e,
  STARTUP: 0x0f,
  VDI_NOT_LOCKED: 0x10,
  SHUTDOWN: 0x11,
  NO_MEM: 0x12,
  FULL_VDI: 0x13,
  VER_MISMATCH: 0x14,
  NO_SPACE: 0x15,
  WAIT_FOR_FORMAT: 0x16,
  WAIT_FOR_JOIN: 0x17,
  JOIN_FAILED: 0x18,
  HALT: 0x19,
  READONLY: 0x1a,
  INODE_INVALIDATED: 0x1d,
  OLD_NODE_VER: 0x81,
  NEW_NODE_VER: 0x82,
  NOT_FORMATTED: 0x83,
  INVALID_CTIME: 0x84,
  INVALID_EPOCH: 0x85,
  NETWORK_ERROR: 0x86,
  NO_CACHE: 0x87,
  BUFFER_SMALL: 0x88,
  FORCE_RECOVER: 0x89,
  NO_STORE: 0x8a,
  NO_SUPPORT: 0x8b,
  NODE_IN_RECOVERY: 0x8c,
  KILLED: 0x8d,
  OID_EXIST: 0x8e,
  AGAIN: 0x8f,
  STALE_OBJ: 0x90,
  CLUSTER_ERROR: 0x91,
  VDI_NOT_EMPTY: 0x92,
  NOT_FOUND: 0x93,
  INCOMPLETE: 0x94,
  COLLECTING_CINFO: 0x95,
  GATEWAY_MODE: 0x97,
  INVALID_VNODES_STRATEGY: 0x98,
  NO_CHECKPOINT_ENTRY: 0x99,
} as const

export type Code = (typeof Code)[keyof typeof Code]

const row = (name: string, text: string, nbd: number, retry: Retry = 'never'): CodeRow => ({
  name,
  text,
  nbd,
  retry,
})

const ROWS: Readonly<Record<Code, CodeRow>> = {
  [Code.SUCCESS]: row('SUCCESS', 'Success', 0),
  [Code.UNKNOWN]: row('UNKNOWN', 'Unknown error', NBD_EIO),
  [Code.NO_OBJ]: row('NO_OBJ', 'No object found', NBD_EIO),
  [Code.EIO]: row('EIO', 'I/O error', NBD_EIO),
  [Code.VDI_EXIST]: row('VDI_EXIST', 'VDI exists already', NBD_EINVAL),
  [Code.INVALID_PARMS]: row('INVALID_PARMS', 'Invalid parameters', NBD_EINVAL),
  [Code.SYSTEM_ERROR]: row('SYSTEM_ERROR', 'System error', NBD_EIO),
  [Code.VDI_LOCKED]: row('VDI_LOCKED', 'VDI is already locked', NBD_EPERM),
  [Code.NO_VDI]: row('NO_VDI', 'No VDI found', NBD_EINVAL),
  [Code.NO_BASE_VDI]: row('NO_BASE_VDI', 'No base VDI found', NBD_EINVAL),
  [Code.VDI_READ]: row('VDI_READ', 'Failed to read from requested VDI', NBD_EIO),
  [Code.VDI_WRITE]: row('VDI_WRITE', 'Failed to write to requested VDI', NBD_EIO),
  [Code.BASE_VDI_READ]: row('BASE_VDI_READ', 'Failed to read from base VDI', NBD_EIO),
  [Code.BASE_VDI_WRITE]: row('BASE_VDI_WRITE', 'Failed to write to base VDI', NBD_EIO),
  [Code.NO_TAG]: row('NO_TAG', 'Failed to find requested tag', NBD_EINVAL),
  [Code.STARTUP]: row('STARTUP', 'System is still booting', NBD_ESHUTDOWN),
  [Code.VDI_NOT_LOCKED]: row('VDI_NOT_LOCKED', 'VDI is not locked', NBD_EINVAL),
  [Code.SHUTDOWN]: row('SHUTDOWN', 'System is shutting down', NBD_ESHUTDOWN),
  [Code.NO_MEM]: row('NO_MEM', 'Out of memory on server', NBD_ENOMEM),
  [Code.FULL_VDI]: row('FULL_VDI', 'Maximum number of VDIs reached', NBD_ENOSPC),
  [Code.VER_MISMATCH]: row('VER_MISMATCH', 'Protocol version mismatch', NBD_EINVAL),
  [Code.NO_SPACE]: row('NO_SPACE', 'Server has no space for new objects', NBD_ENOSPC),
  [Code.WAIT_FOR_FORMAT]: row(
    'WAIT_FOR_FORMAT',
    'Waiting for cluster to be formatted',
    NBD_ESHUTDOWN,
    'backOff',
  ),
  [Code.WAIT_FOR_JOIN]: row(
    'WAIT_FOR_JOIN',
    'Waiting for other nodes to join cluster',
    NBD_ESHUTDOWN,
    'backOff',
  ),
  [Code.JOIN_FAILED]: row('JOIN_FAILED', 'Node has failed to join cluster', NBD_ESHUTDOWN),
  [Code.HALT]: row('HALT', 'IO has halted as there are not enough living nodes', NBD_EIO),
  [Code.READONLY]: row('READONLY', 'Object is read-only', NBD_EPERM),
  [Code.INODE_INVALIDATED]: row('INODE_INVALIDATED', 'Inode object is invalidated', NBD_EIO),
  [Code.OLD_NODE_VER]: row('OLD_NODE_VER', 'Request has an old epoch', NBD_EIO, 'newEpoch'),
  [Code.NEW_NODE_VER]: row('NEW_NODE_VER', 'Request has a new epoch', NBD_EIO, 'newEpoch'),
  [Code.NOT_FORMATTED]: row('NOT_FORMATTED', 'Cluster has not been formatted', NBD_ESHUTDOWN),
  [Code.INVALID_CTIME]: row('INVALID_CTIME', 'Creation times differ', NBD_EIO),
  [Code.INVALID_EPOCH]: row('INVALID_EPOCH', 'Invalid epoch', NBD_EIO),
  [Code.NETWORK_ERROR]: row('NETWORK_ERROR', 'Network error between sheep', NBD_EIO, 'backOff'),
  [Code.NO_CACHE]: row('NO_CACHE', 'No cache object found', NBD_EIO),
  [Code.BUFFER_SMALL]: row('BUFFER_SMALL', 'The buffer is too small', NBD_EINVAL),
  [Code.FORCE_RECOVER]: row(
    'FORCE_RECOVER',
    'Cluster is running/halted and cannot be force recovered',
    NBD_EINVAL,
  ),
  [Code.NO_STORE]: row('NO_STORE', 'Targeted backend store is not found', NBD_EINVAL),
  [Code.NO_SUPPORT]: row('NO_SUPPORT', 'Operation is not supported', NBD_ENOTSUP),
  [Code.NODE_IN_RECOVERY]: row('NODE_IN_RECOVERY', 'Targeted node is in recovery', NBD_EIO),
  [Code.KILLED]: row('KILLED', 'Node is killed', NBD_ESHUTDOWN, 'backOff'),
  [Code.OID_EXIST]: row('OID_EXIST', 'Object ID exists already', NBD_EINVAL),
  [Code.AGAIN]: row('AGAIN', 'Ask to try again', NBD_EIO, 'backOff'),
  [Code.STALE_OBJ]: row('STALE_OBJ', 'Object may be stale', NBD_EIO),
  [Code.CLUSTER_ERROR]: row('CLUSTER_ERROR', 'Cluster driver error', NBD_EIO),
  [Code.VDI_NOT_EMPTY]: row('VDI_NOT_EMPTY', 'VDI is not empty', NBD_EINVAL),
  [Code.NOT_FOUND]: row('NOT_FOUND', 'Not found', NBD_EINVAL),
  [Code.INCOMPLETE]: row('INCOMPLETE', 'Incomplete upload', NBD_EIO),
  [Code.COLLECTING_CINFO]: row(
    'COLLECTING_CINFO',
    'Node is collecting cluster information',
    NBD_EIO,
    'backOff',
  ),
  [Code.GATEWAY_MODE]: row('GATEWAY_MODE', 'Targeted node is gateway mode', NBD_EINVAL),
  [Code.INVALID_VNODES_STRATEGY]: row(
    'INVALID_VNODES_STRATEGY',
    'Invalid cluster vnodes strategy',
    NBD_EINVAL,
  ),
  [Code.NO_CHECKPOINT_ENTRY]: row('NO_CHECKPOINT_ENTRY', 'No checkpoint entry', NBD_EIO),
}

function rowOf(code: number): CodeRow | undefined {
  return (ROWS as Readonly<Record<number, CodeRow>>)[code]
}

/** The sentence for a code, as sheepdog 1.0 prints it; unknown numbers are shown in hex. */
export function codeText(code: number): string {
  return rowOf(code)?.text ?? `Invalid error code ${code.toString(16)}`
}

export function codeName(code: number): string {
  return rowOf(code)?.name ?? `0x${code.toString(16)}`
}

export function retryOf(code: number): Retry {
  return rowOf(code)?.retry ?? 'never'
}

/** NBD error value for a code; EIO for numbers we do not know. */
export function nbdErrorOf(code: number): number {
  return rowOf(code)?.nbd ?? NBD_EIO
}

/** A number from the wire as a Code; unknown numbers become UNKNOWN. */
export function toCode(value: number): Code {
  return rowOf(value) === undefined ? Code.UNKNOWN : (value as Code)
}

/** An error a caller may act on: `code` decides, `message` is for people. */
export class SheepError extends Error {
  readonly code: Code

  constructor(code: Code, message: string = codeText(code)) {
    super(message)
    this.name = 'SheepError'
    this.code = code
  }
}

/** The code of anything thrown: a SheepError's own, SYSTEM_ERROR for the rest. */
export function codeOf(error: unknown): Code {
  return error instanceof SheepError ? error.code : Code.SYSTEM_ERROR
}

/** How I/O completes on the data path: exactly once, possibly before the call returns. */
export type Done = (code: Code) => void
