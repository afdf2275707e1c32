/**
 * Requests, replies and notifications of the ZooKeeper client protocol (zookeeper.jute; versions 3.4 and later).
 *
 *   connect    protocol i32 | last zxid i64 | timeout i32 | session i64 | password buffer | read-only bool
 *   accepted   protocol i32 | timeout i32 | session i64 | password buffer | read-only bool
 *   request    xid i32 | type i32 | record of the type
 *   reply      xid i32 | zxid i64 | error i32 | record of the type, when error is 0
 *   event      xid -1, zxid -1, error 0 | kind i32 | state i32 | path
 */
import { JuteReader, JuteWriter, MalformedJute } from './jute.js'

export const ZkOp = {
  CREATE: 1,
  DELETE: 2,
  EXISTS: 3,
  GET_DATA: 4,
  SET_DATA: 5,
  GET_CHILDREN: 8,
  SYNC: 9,
  PING: 11,
  CHECK: 13,
  MULTI: 14,
  SET_WATCHES: 101,
  CLOSE: -11,
} as const

/** Transaction numbers that are no request's own. */
export const ZkXid = { EVENT: -1, PING: -2, SET_WATCHES: -8 } as const

export const ZkCode = {
  OK: 0,
  CONNECTION_LOSS: -4,
  MARSHALLING: -5,
  NO_NODE: -101,
  NO_AUTH: -102,
  BAD_VERSION: -103,
  NODE_EXISTS: -110,
  NOT_EMPTY: -111,
  SESSION_EXPIRED: -112,
  INVALID_ACL: -114,
  SESSION_MOVED: -118,
} as const

const CODE_NAMES = new Map<number, string>(
  Object.entries(ZkCode).map(([name, code]) => [code, name.toLowerCase().replaceAll('_', ' ')]),
)

/** What a server said no with; `code` decides. */
export class ZkError extends Error {
  override readonly name = 'ZkError'
  readonly code: number

  constructor(code: number, what: string) {
    super(`ZooKeeper: ${what}: ${CODE_NAMES.get(code) ?? `error ${code}`}`)
    this.code = code
  }
}

export interface CreateFlags {
  readonly ephemeral?: boolean
  readonly sequential?: boolean
}

const EPHEMERAL = 1
const SEQUENTIAL = 2
const PERMISSIONS_ALL = 31
export const ANY_VERSION = -1

/** One change; several make an all-or-nothing one. Versions: ANY_VERSION, or the one it must have. */
export type ZkChange =
  | {
      readonly kind: 'create'
      readonly path: string
      readonly data: Buffer
      readonly flags: number
    }
  | { readonly kind: 'delete'; readonly path: string; readonly version: number }
  | {
      readonly kind: 'set'
      readonly path: string
      readonly data: Buffer
      readonly version: number
    }
  | { readonly kind: 'check'; readonly path: string; readonly version: number }

export type ZkRequest =
  | ZkChange
  | { readonly kind: 'exists' | 'get' | 'children'; readonly path: string; readonly watch: boolean }
  | { readonly kind: 'sync'; readonly path: string }
  | { readonly kind: 'multi'; readonly changes: readonly ZkChange[] }
  | { readonly kind: 'close' }

export function createChange(path: string, data: Buffer, how: CreateFlags = {}): ZkChange {
  const flags =
    (how.ephemeral === true ? EPHEMERAL : 0) | (how.sequential === true ? SEQUENTIAL : 0)
  return { kind: 'create', path, data, flags }
}

export function createFlags(flags: number): Required<CreateFlags> {
  return { ephemeral: (flags & EPHEMERAL) !== 0, sequential: (flags & SEQUENTIAL) !== 0 }
}

const OP_OF: Readonly<Record<ZkRequest['kind'], number>> = {
  create: ZkOp.CREATE,
  delete: ZkOp.DELETE,
  set: ZkOp.SET_DATA,
  check: ZkOp.CHECK,
  exists: ZkOp.EXISTS,
  get: ZkOp.GET_DATA,
  children: ZkOp.GET_CHILDREN,
  sync: ZkOp.SYNC,
  multi: ZkOp.MULTI,
  close: ZkOp.CLOSE,
}

export interface ConnectRequest {
  readonly lastZxid: bigint
  readonly timeoutMs: number
  /** 0: a new session. */
  readonly sessionId: bigint
  /** 16 bytes. */
  readonly password: Buffer
}

export function encodeConnect(request: ConnectRequest): Buffer {
  const { lastZxid, timeoutMs, sessionId, password } = request
  return new JuteWriter()
    .int(0)
    .long(lastZxid)
    .int(timeoutMs)
    .long(sessionId)
    .buffer(password)
    .bool(false)
    .frame()
}

export interface Accepted {
  /** As the server wants it; 0: the session is over. */
  readonly timeoutMs: number
  readonly sessionId: bigint
  readonly password: Buffer
}

export function decodeAccepted(content: Buffer): Accepted {
  const from = new JuteReader(content)
  from.int()
  // Copied: it outlives the frame.
  return { timeoutMs: from.int(), sessionId: from.long(), password: Buffer.from(from.buffer()) }
}

function writeChange(into: JuteWriter, change: ZkChange): JuteWriter {
  into.text(change.path)
  switch (change.kind) {
    case 'create':
      into.buffer(change.data).int(1).int(PERMISSIONS_ALL).text('world').text('anyone')
      return into.int(change.flags)
    case 'set':
      return into.buffer(change.data).int(change.version)
    case 'delete':
    case 'check':
      return into.int(change.version)
  }
}

export function encodeRequest(xid: number, request: ZkRequest): Buffer {
  const into = new JuteWriter().int(xid).int(OP_OF[request.kind])
  switch (request.kind) {
    case 'create':
    case 'set':
    case 'delete':
    case 'check':
      return writeChange(into, request).frame()
    case 'exists':
    case 'get':
    case 'children':
      return into.text(request.path).bool(request.watch).frame()
    case 'sync':
      return into.text(request.path).frame()
    case 'multi':
      for (const change of request.changes) {
        writeChange(into.int(OP_OF[change.kind]).bool(false).int(-1), change)
      }
      return into.int(-1).bool(true).int(-1).frame()
    case 'close':
      return into.frame()
  }
}

export function encodePing(): Buffer {
  return new JuteWriter().int(ZkXid.PING).int(ZkOp.PING).frame()
}

/** Watches to keep after a reconnection, by the kind of request that set them. */
export interface WatchedPaths {
  readonly data: readonly string[]
  readonly exists: readonly string[]
  readonly children: readonly string[]
}

export function encodeSetWatches(sinceZxid: bigint, paths: WatchedPaths): Buffer {
  return new JuteWriter()
    .int(ZkXid.SET_WATCHES)
    .int(ZkOp.SET_WATCHES)
    .long(sinceZxid)
    .texts(paths.data)
    .texts(paths.exists)
    .texts(paths.children)
    .frame()
}

export interface ZkStat {
  readonly version: number
  readonly cversion: number
  /** Session that holds an ephemeral node; 0 for others. */
  readonly owner: bigint
  readonly dataLength: number
  readonly children: number
}

export interface ReplyHead {
  readonly xid: number
  /** -1 in notifications. */
  readonly zxid: bigint
  readonly error: number
}

export function readReplyHead(from: JuteReader): ReplyHead {
  return { xid: from.int(), zxid: from.long(), error: from.int() }
}

export function readStat(from: JuteReader): ZkStat {
  from.long()
  from.long()
  from.long()
  from.long()
  const version = from.int()
  const cversion = from.int()
  from.int()
  const owner = from.long()
  const dataLength = from.int()
  const children = from.int()
  from.long()
  return { version, cversion, owner, dataLength, children }
}

/** The paths of the nodes a multi created, in its order. Throws ZkError when it was refused as a whole. */
export function readMultiReply(from: JuteReader, what: string): string[] {
  const created: string[] = []
  let refusal = 0
  for (;;) {
    const type = from.int()
    const done = from.bool()
    const error = from.int()
    if (done) break
    if (type === ZkOp.CREATE) created.push(from.text())
    else if (type === ZkOp.SET_DATA) readStat(from)
    else if (type === -1) {
      from.int()
      // The others say "runtime inconsistency" (-2): one of theirs was refused.
      if (error !== 0 && error !== -2 && refusal === 0) refusal = error
    } else if (type !== ZkOp.DELETE && type !== ZkOp.CHECK) {
      throw new MalformedJute(`result of type ${type}`)
    }
  }
  if (refusal !== 0) throw new ZkError(refusal, what)
  return created
}

export type EventKind = 'created' | 'deleted' | 'changed' | 'children' | 'session'
const EVENT_KINDS: Readonly<Record<number, EventKind>> = {
  1: 'created',
  2: 'deleted',
  3: 'changed',
  4: 'children',
}

export interface ZkEvent {
  readonly kind: EventKind
  readonly path: string
}

export function readEvent(from: JuteReader): ZkEvent {
  const kind = EVENT_KINDS[from.int()] ?? 'session'
  from.int()
  return { kind, path: from.text() }
}
