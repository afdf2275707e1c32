/** What an errno of the file system means for an object operation (objects spec, section 14). */
import { Code } from '../base/codes.js'

const CODES: Readonly<Record<string, Code>> = {
  ENOENT: Code.NO_OBJ,
  ENOSPC: Code.NO_SPACE,
  EDQUOT: Code.NO_SPACE,
  // Shortages that pass: the gateway asks again.
  EMFILE: Code.NETWORK_ERROR,
  ENFILE: Code.NETWORK_ERROR,
  EINTR: Code.NETWORK_ERROR,
  EAGAIN: Code.NETWORK_ERROR,
}

/** Name of the errno in anything thrown; '' when there is none. */
export function errnoOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  const { code } = error as NodeJS.ErrnoException
  return typeof code === 'string' ? code : ''
}

export function codeOfErrno(error: unknown): Code {
  return CODES[errnoOf(error)] ?? Code.EIO
}
