/** Numbers of the NBD protocol, by the names its document gives them. All integers big endian. */

/** `NBDMAGIC` and `IHAVEOPT` as pairs of u32. */
export const GREETING_MAGIC = [0x4e42444d, 0x41474943] as const
export const OPTION_MAGIC = [0x49484156, 0x454f5054] as const
export const OPTION_REPLY_MAGIC = [0x0003e889, 0x045565a9] as const
export const REQUEST_MAGIC = 0x25609513
export const SIMPLE_REPLY_MAGIC = 0x67446698
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef
export const EXTENDED_REQUEST_MAGIC = 0x21e41c71
export const EXTENDED_REPLY_MAGIC = 0x6e8a278c

export const HandshakeFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const

export const Option = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const

const ERROR_BIT = 0x80000000

export const Rep = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: ERROR_BIT + 1,
  ERR_POLICY: ERROR_BIT + 2,
  ERR_INVALID: ERROR_BIT + 3,
  ERR_TLS_REQD: ERROR_BIT + 5,
  ERR_UNKNOWN: ERROR_BIT + 6,
  ERR_SHUTDOWN: ERROR_BIT + 7,
  ERR_TOO_BIG: ERROR_BIT + 9,
} as const

export const Info = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const

export const TransmissionFlag = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
  BLOCK_STAT_PAYLOAD: 1 << 12,
} as const

export const Command = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const

export const CommandFlag = {
  FUA: 1 << 0,
  NO_HOLE: 1 << 1,
  DF: 1 << 2,
  REQ_ONE: 1 << 3,
  FAST_ZERO: 1 << 4,
  /** Extended headers: the length is that of a payload, not of the range. */
  PAYLOAD_LEN: 1 << 5,
} as const

export const ReplyFlag = { DONE: 1 } as const

export const ReplyType = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  BLOCK_STATUS_EXT: 6,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const

export const NbdError = {
  EPERM: 1,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ESHUTDOWN: 108,
} as const

/** States of the `base:allocation` context. */
export const AllocationState = { DATA: 0, HOLE_AND_ZERO: 3 } as const
export const BASE_ALLOCATION = 'base:allocation'

export const BLOCK_BYTES_MIN = 1
export const BLOCK_BYTES_PREFERRED = 4096

/** Limits of this door, with the reason for each value. */
export const NBD_LIMITS = {
  /** Payload of one READ or WRITE: what the document lets every client send unasked. */
  payloadBytesMax: 32 * 1024 * 1024,
  /** A string of the protocol (document, "Values"). */
  stringBytesMax: 4096,
  /** Data of one option that is looked at: a dozen of the longest strings. */
  optionBytesMax: 64 * 1024,
  /** Data of one option that is skipped and answered ERR_TOO_BIG; beyond it the client is dropped. */
  optionSkipBytesMax: 1024 * 1024,
  /** Options of one connection: `qemu-nbd --list` sends several for each export there is. */
  optionsMax: 65536,
  /** Silence during the handshake. */
  handshakeIdleMs: 10_000,
  /** The handshake as a whole, for clients that drip. */
  handshakeTotalMs: 120_000,
  /** How long the other side may take to receive the last replies and to close after we did. */
  lingerMs: 60_000,
  /** Connections beyond the limits that are told why, at once; more are closed without a word. */
  refusedAtOnceMax: 64,
  /** Meta contexts one client may choose: a chunk of every block status reply each. */
  contextsMax: 64,
  /** Descriptors in one block status reply; a client asks again from where they end. */
  extentsPerReplyMax: 1024,
  /** Bytes one CACHE request really reads; the rest of the advice is ignored. */
  cacheBytesMax: 32 * 1024 * 1024,
} as const
