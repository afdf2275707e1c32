/** How commands end: status and sense data in fixed format (SPC-4, 4.5.3). */
import { Asc, SenseKey, Status } from './constants.js'

export interface Sense {
  readonly key: number
  /** Additional sense code << 8 | qualifier. */
  readonly code: number
  /** What INFORMATION says, such as the offset of a difference. */
  readonly information?: number | undefined
}

export interface Outcome {
  readonly status: number
  readonly sense?: Sense
}

export const GOOD: Outcome = { status: Status.GOOD }
export const CONFLICT: Outcome = { status: Status.RESERVATION_CONFLICT }

export function check(key: number, code: number, information?: number): Outcome {
  return { status: Status.CHECK_CONDITION, sense: { key, code, information } }
}

const illegal = (code: number): Outcome => check(SenseKey.ILLEGAL_REQUEST, code)

export const INVALID_FIELD = illegal(Asc.INVALID_FIELD_IN_CDB)
export const INVALID_OPCODE = illegal(Asc.INVALID_OPCODE)
export const INVALID_PARAMETER = illegal(Asc.INVALID_PARAMETER)
export const OUT_OF_RANGE = illegal(Asc.LBA_OUT_OF_RANGE)
export const NO_SUCH_UNIT = illegal(Asc.NO_SUCH_UNIT)
export const BAD_LIST_LENGTH = illegal(Asc.PARAMETER_LIST_LENGTH)
export const WRITE_PROTECTED = check(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)

export const SENSE_BYTES = 18

/** NO SENSE when there is none. */
export function encodeSense(sense: Sense | undefined): Buffer {
  const bytes = Buffer.alloc(SENSE_BYTES)
  bytes[0] = 0x70
  bytes[7] = SENSE_BYTES - 8
  if (sense === undefined) return bytes
  bytes[2] = sense.key
  if (sense.information !== undefined && sense.information <= 0xffffffff) {
    bytes[0] = 0xf0
    bytes.writeUInt32BE(sense.information, 3)
  }
  bytes.writeUInt16BE(sense.code, 12)
  return bytes
}
