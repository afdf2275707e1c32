/**
 * The one place that judges a request: flags, access, length, range. What passed is inside the
 * volume and has only flags that mean something; nothing below checks again.
 */
import type { Volume } from '../../volume/volume.js'
import { Command, CommandFlag, NBD_LIMITS, NbdError } from '../../wire/nbd/constants.js'
import type { RequestHeader } from '../../wire/nbd/framing.js'
import type { Agreed } from './handshake.js'

export interface Refusal {
  /** NBD error value. */
  readonly error: number
  readonly text: string
  /** Where in the range it went wrong, as far as that is known and says nothing about what was done before it. */
  readonly offset?: number | undefined
}

const refusal = (error: number, text: string): Refusal => ({ error, text })

const UNKNOWN_COMMAND = refusal(NbdError.EINVAL, 'unknown command')
const UNKNOWN_FLAG = refusal(NbdError.EINVAL, 'flag does not belong to this command')
const READ_ONLY = refusal(NbdError.EPERM, 'export is read-only')
const NO_CONTEXT = refusal(NbdError.EINVAL, 'no meta context was agreed on')
const NOT_EMPTY = refusal(NbdError.EINVAL, 'flush takes no range')
export const MALFORMED_QUESTION = refusal(NbdError.EINVAL, 'payload is no list of chosen contexts')
const EMPTY = refusal(NbdError.EINVAL, 'range is empty')
const TOO_LONG = refusal(NbdError.EINVAL, 'request is too long')
const TOO_LONG_IN_ONE = refusal(NbdError.EOVERFLOW, 'request is too long for one piece')
const BEYOND = refusal(NbdError.EINVAL, 'range is beyond the end of the export')
const NO_SPACE = refusal(NbdError.ENOSPC, 'range is beyond the end of the export')
export const SHUTTING_DOWN = refusal(NbdError.ESHUTDOWN, 'server is shutting down')

/** Flags by command. FUA goes with every command: the document tells servers to bear it. */
const FLAGS: readonly (number | undefined)[] = (() => {
  const flags: number[] = []
  flags[Command.READ] = CommandFlag.FUA | CommandFlag.DF
  flags[Command.WRITE] = CommandFlag.FUA
  flags[Command.FLUSH] = CommandFlag.FUA
  flags[Command.TRIM] = CommandFlag.FUA
  flags[Command.CACHE] = CommandFlag.FUA
  flags[Command.WRITE_ZEROES] = CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO
  flags[Command.BLOCK_STATUS] = CommandFlag.FUA | CommandFlag.REQ_ONE
  return flags
})()

/** Undefined: let it pass. */
export function gate(
  request: RequestHeader,
  agreed: Agreed,
  disk: Pick<Volume, 'sizeBytes' | 'readOnly'>,
): Refusal | undefined {
  const { type, flags, offset, length } = request
  const allowed = FLAGS[type]
  if (allowed === undefined) return UNKNOWN_COMMAND
  const { chunks } = agreed
  // A payload is said to be one where headers are extended; sent or not, a WRITE has one.
  const mayHavePayload = type === Command.WRITE || type === Command.BLOCK_STATUS
  const payloadFlag = chunks?.isExtended === true && mayHavePayload ? CommandFlag.PAYLOAD_LEN : 0
  if ((flags & ~(allowed | payloadFlag)) !== 0) return UNKNOWN_FLAG
  if ((flags & CommandFlag.DF) !== 0 && chunks === undefined) return UNKNOWN_FLAG
  const writes = type === Command.WRITE || type === Command.WRITE_ZEROES
  if (disk.readOnly && (writes || type === Command.TRIM)) return READ_ONLY
  if (type === Command.FLUSH) return offset === 0 && length === 0 ? undefined : NOT_EMPTY
  if (type === Command.READ && length > NBD_LIMITS.payloadBytesMax) {
    return (flags & CommandFlag.DF) === 0 ? TOO_LONG : TOO_LONG_IN_ONE
  }
  // The payload has the length of the range; it is looked at once it is here.
  const isQuestion = type === Command.BLOCK_STATUS && (flags & CommandFlag.PAYLOAD_LEN) !== 0
  if (isQuestion) return agreed.contexts.length === 0 ? NO_CONTEXT : undefined
  if (offset > disk.sizeBytes || length > disk.sizeBytes - offset) {
    if (writes) return NO_SPACE
    return type === Command.TRIM ? BEYOND : beyond(request, disk.sizeBytes)
  }
  if (type === Command.BLOCK_STATUS) {
    if (agreed.contexts.length === 0) return NO_CONTEXT
    if (length === 0) return EMPTY
  }
  return undefined
}

/**
 * With the first offset that is not there, for who wanted to know or to read. (Of a refused change it would look as if
 * what comes before it had been changed.)
 */
function beyond({ offset, length }: RequestHeader, sizeBytes: number): Refusal {
  const first = Math.max(offset, sizeBytes)
  // An offset so large lost bits on its way into a number, and is not the client's any more.
  return length > 0 && Number.isSafeInteger(first) ? { ...BEYOND, offset: first } : BEYOND
}
