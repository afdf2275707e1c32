/** The answer to a request, before it is put in a frame. */
import { Code } from '../base/codes.js'
import { setVdiReply, type VdiReply } from '../wire/sheepdog/replies.js'

export interface Answer {
  readonly result: Code
  readonly body?: Buffer
  /** Called when the body has left and is nobody's any more; never, when it does not leave. */
  readonly sent?: () => void
  /** Writes the fields of the response's union. */
  readonly fill?: (head: Buffer) => void
}

export type Reply = (answer: Answer) => void

export const OK: Answer = { result: Code.SUCCESS }

export function failed(result: Code): Answer {
  return { result }
}

export function vdiAnswer(reply: Partial<VdiReply>): Answer {
  return { result: Code.SUCCESS, fill: (head) => void setVdiReply(head, reply) }
}
