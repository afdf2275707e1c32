/** RECYCLE_NOW: an administrator wants ids of deleted volumes free now, or to know why they are not. */
import { Code, codeOf } from '../../base/codes.js'
import { failed } from '../../sheep/answer.js'
import { encodeKept, setFreed } from '../../wire/sheepdog/recycling.js'
import type { Operation } from './context.js'

export const recycleNow: Operation['run'] = ({ node }, request, reply) => {
  const { recycling } = node.caretaker
  if (!recycling.isOn) {
    reply(failed(Code.NO_SUPPORT))
    return
  }
  recycling.now().then(
    ({ freed, kept }) =>
      reply({
        result: Code.SUCCESS,
        body: encodeKept(kept, request.dataLength),
        fill: (head) => setFreed(head, freed),
      }),
    (error: unknown) => reply(failed(codeOf(error))),
  )
}
