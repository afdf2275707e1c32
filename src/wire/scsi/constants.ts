/** Numbers of SCSI (SAM-5, SPC-4, SBC-3), by the names the standards give them. */

export const Opcode = {
  TEST_UNIT_READY: 0x00,
  REQUEST_SENSE: 0x03,
  READ_6: 0x08,
  WRITE_6: 0x0a,
  INQUIRY: 0x12,
  MODE_SELECT_6: 0x15,
  RESERVE_6: 0x16,
  RELEASE_6: 0x17,
  MODE_SENSE_6: 0x1a,
  START_STOP_UNIT: 0x1b,
  SEND_DIAGNOSTIC: 0x1d,
  PREVENT_ALLOW: 0x1e,
  READ_CAPACITY_10: 0x25,
  READ_10: 0x28,
  WRITE_10: 0x2a,
  WRITE_VERIFY_10: 0x2e,
  VERIFY_10: 0x2f,
  PREFETCH_10: 0x34,
  SYNCHRONIZE_CACHE_10: 0x35,
  WRITE_SAME_10: 0x41,
  UNMAP: 0x42,
  MODE_SELECT_10: 0x55,
  MODE_SENSE_10: 0x5a,
  PERSISTENT_RESERVE_IN: 0x5e,
  PERSISTENT_RESERVE_OUT: 0x5f,
  READ_16: 0x88,
  COMPARE_AND_WRITE: 0x89,
  WRITE_16: 0x8a,
  ORWRITE_16: 0x8b,
  WRITE_VERIFY_16: 0x8e,
  VERIFY_16: 0x8f,
  PREFETCH_16: 0x90,
  SYNCHRONIZE_CACHE_16: 0x91,
  WRITE_SAME_16: 0x93,
  SERVICE_ACTION_IN: 0x9e,
  REPORT_LUNS: 0xa0,
  MAINTENANCE_IN: 0xa3,
  READ_12: 0xa8,
  WRITE_12: 0xaa,
  WRITE_VERIFY_12: 0xae,
  VERIFY_12: 0xaf,
} as const

export const ServiceAction = {
  READ_CAPACITY_16: 0x10,
  GET_LBA_STATUS: 0x12,
  REPORT_TARGET_PORT_GROUPS: 0x0a,
  REPORT_SUPPORTED_OPCODES: 0x0c,
  REPORT_TASK_MANAGEMENT: 0x0d,
} as const

export const Status = {
  GOOD: 0x00,
  CHECK_CONDITION: 0x02,
  BUSY: 0x08,
  RESERVATION_CONFLICT: 0x18,
  TASK_SET_FULL: 0x28,
  TASK_ABORTED: 0x40,
} as const

export const SenseKey = {
  NO_SENSE: 0,
  NOT_READY: 2,
  MEDIUM_ERROR: 3,
  ILLEGAL_REQUEST: 5,
  UNIT_ATTENTION: 6,
  DATA_PROTECT: 7,
  ABORTED_COMMAND: 0xb,
  MISCOMPARE: 0xe,
} as const

/** Additional sense code << 8 | qualifier. */
export const Asc = {
  NONE: 0x0000,
  NOT_READY: 0x0401,
  WRITE_ERROR: 0x0c00,
  UNRECOVERED_READ: 0x1100,
  PARAMETER_LIST_LENGTH: 0x1a00,
  MISCOMPARE: 0x1d00,
  INVALID_OPCODE: 0x2000,
  LBA_OUT_OF_RANGE: 0x2100,
  INVALID_FIELD_IN_CDB: 0x2400,
  NO_SUCH_UNIT: 0x2500,
  INVALID_PARAMETER: 0x2600,
  INVALID_RELEASE: 0x2604,
  WRITE_PROTECTED: 0x2700,
  NO_SPACE: 0x2707,
  POWER_ON: 0x2900,
  BUS_RESET: 0x2902,
  DEVICE_RESET: 0x2903,
  NEXUS_LOST: 0x2907,
  MODE_CHANGED: 0x2a01,
  RESERVATIONS_PREEMPTED: 0x2a03,
  RESERVATIONS_RELEASED: 0x2a04,
  REGISTRATIONS_PREEMPTED: 0x2a05,
  CAPACITY_CHANGED: 0x2a09,
  COMMANDS_CLEARED: 0x2f00,
  INSUFFICIENT_RESOURCES: 0x5503,
  SAVING_NOT_SUPPORTED: 0x3900,
  DATA_PHASE: 0x4b00,
} as const

/** Limits of our logical units, with the reason for each value. */
export const SCSI_LIMITS = {
  /** COMPARE AND WRITE holds everybody else off its range. One byte of the CDB counts its blocks. */
  compareBlocksMax: 255,
  /** One command of WRITE SAME: as much as one WRITE, so that none takes longer than others may wait for. */
  writeSameBytesMax: 16 * 1024 * 1024,
  /** Descriptors of one UNMAP. */
  unmapDescriptorsMax: 256,
  /** Descriptors one GET LBA STATUS answers. */
  lbaStatusMax: 512,
  /** What VERIFY and the like look at at once. */
  pieceBytes: 1024 * 1024,
  /** Registrations of one logical unit. */
  registrationsMax: 256,
  /** Conditions that wait for one initiator; older ones than these are no news beside them. */
  attentionsMax: 8,
  /** Parameters of MODE SELECT and PERSISTENT RESERVE OUT. */
  parameterBytesMax: 8192,
} as const
