/** What the answers of several nodes amount to. */
import { Code, retryOf, toCode } from '../base/codes.js'
import type { Frame } from '../wire/sheepdog/frame.js'

/** A node that gave no reply may or may not have done it. */
export function replyCode(reply: Frame | undefined): Code {
  return reply === undefined ? Code.NETWORK_ERROR : toCode(reply.result)
}

/** Of two outcomes the one the caller needs to know: a retry beats a verdict, a verdict beats success. */
export function moreTelling(a: Code, b: Code): Code {
  if (a === Code.SUCCESS) return b
  if (b === Code.SUCCESS) return a
  if (retryOf(a) !== 'never') return a
  if (retryOf(b) !== 'never') return b
  return a === Code.NO_OBJ ? b : a
}
