/** Numbers of iSCSI (RFC 7143, section 11), by the names it gives them. All integers big endian. */

export const BHS_BYTES = 48
export const DIGEST_BYTES = 4
/** "No tag": tasks that expect no answer, transfers nobody asked for. */
export const NO_TAG = 0xffffffff

/** Opcodes of initiators; bit 0x40 of the same byte is "immediate". */
export const Op = {
  NOP_OUT: 0x00,
  SCSI_COMMAND: 0x01,
  TASK_MANAGEMENT: 0x02,
  LOGIN: 0x03,
  TEXT: 0x04,
  DATA_OUT: 0x05,
  LOGOUT: 0x06,
} as const

/** Opcodes of targets. */
export const Answer = {
  NOP_IN: 0x20,
  SCSI_RESPONSE: 0x21,
  TASK_MANAGEMENT: 0x22,
  LOGIN: 0x23,
  TEXT: 0x24,
  DATA_IN: 0x25,
  LOGOUT: 0x26,
  R2T: 0x31,
  ASYNC: 0x32,
  REJECT: 0x3f,
} as const

/** Byte 1 of most requests and answers. */
export const FINAL = 0x80

export const CommandFlag = { READ: 0x40, WRITE: 0x20, ATTRIBUTE: 0x07 } as const
export const TaskAttribute = { UNTAGGED: 0, SIMPLE: 1, ORDERED: 2, HEAD_OF_QUEUE: 3 } as const
/** Of Data-In and of the SCSI response. */
export const DataFlag = { OVERFLOW: 0x04, UNDERFLOW: 0x02, STATUS: 0x01 } as const

export const LoginFlag = { TRANSIT: 0x80, CONTINUE: 0x40 } as const
export const TextFlag = { CONTINUE: 0x40 } as const
export const Stage = { SECURITY: 0, OPERATIONAL: 1, FULL_FEATURE: 3 } as const

/** Class << 8 | detail. */
export const LoginStatus = {
  SUCCESS: 0x0000,
  INITIATOR_ERROR: 0x0200,
  AUTHENTICATION_FAILED: 0x0201,
  FORBIDDEN: 0x0202,
  NOT_FOUND: 0x0203,
  UNSUPPORTED_VERSION: 0x0205,
  TOO_MANY_CONNECTIONS: 0x0206,
  MISSING_PARAMETER: 0x0207,
  SESSION_TYPE: 0x0209,
  NO_SUCH_SESSION: 0x020a,
  INVALID_REQUEST: 0x020b,
  SERVICE_UNAVAILABLE: 0x0301,
  OUT_OF_RESOURCES: 0x0302,
} as const

export const TaskFunction = {
  ABORT_TASK: 1,
  ABORT_TASK_SET: 2,
  CLEAR_TASK_SET: 4,
  LUN_RESET: 5,
  TARGET_WARM_RESET: 6,
  TARGET_COLD_RESET: 7,
} as const

export const TaskResponse = {
  COMPLETE: 0,
  NO_TASK: 1,
  NO_LUN: 2,
  NO_REASSIGNMENT: 4,
  NOT_SUPPORTED: 5,
} as const

export const LogoutReason = { CLOSE_SESSION: 0, CLOSE_CONNECTION: 1, RECOVERY: 2 } as const
export const LogoutResponse = { CLOSED: 0, NO_CONNECTION: 1, NO_RECOVERY: 2 } as const

export const RejectReason = {
  DATA_DIGEST: 0x02,
  PROTOCOL_ERROR: 0x04,
  NOT_SUPPORTED: 0x05,
  INVALID_FIELD: 0x09,
} as const

export const AsyncEvent = { LOGOUT_REQUESTED: 1 } as const

/** Limits of this door, with the reason for each value. */
export const ISCSI_LIMITS = {
  /** What we declare as our MaxRecvDataSegmentLength: a PDU is gathered before it is looked at. */
  segmentBytesMax: 256 * 1024,
  /** During login, of both sides (RFC 7143, section 13.12). */
  loginSegmentBytesMax: 8192,
  /** Text of one negotiation over all its PDUs. */
  textBytesMax: 64 * 1024,
  /** Of one key's value (RFC 7143, section 6.1: 8192 are enough for everybody). */
  valueBytesMax: 8192,
  /** Pairs in one text. */
  pairsMax: 256,
  /** Requests of one login before it is given up. */
  loginRequestsMax: 64,
  /** Silence during login, and the login as a whole. */
  loginIdleMs: 15_000,
  loginTotalMs: 60_000,
  /** Most we agree to of a sequence of Data-In or Data-Out. */
  burstBytesMax: 1024 * 1024,
  /** Data that may come unasked with one command: it is kept before anybody knows whether there is room. */
  firstBurstBytesMax: 256 * 1024,
  outstandingR2tMax: 8,
  /** Commands one session may have under way: the window of CmdSN. */
  windowCommands: 128,
  /** Requests outside of the window at once: NOPs, task management. */
  immediateMax: 32,
  /** Bytes of data of one session's commands under way; others wait. */
  sessionBytesMax: 64 * 1024 * 1024,
  /** Bytes one command may move: MAXIMUM TRANSFER LENGTH. */
  transferBytesMax: 16 * 1024 * 1024,
  /** After this silence the initiator is asked whether it is there; after as much again it is gone. */
  silenceMs: 30_000,
  /** How long the other side may take to receive the last answers and to close after we did. */
  lingerMs: 10_000,
  /** From the request to log out until the connection is ended all the same. */
  drainMs: 2_000,
  connectionsMax: 1024,
  /** Names of targets and initiators (RFC 7143, section 4.2.7.1). */
  nameBytesMax: 223,
} as const
