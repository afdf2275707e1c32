/** What nodes tell each other of writes in flight and of copies that may differ. */
import { Code } from '../../base/codes.js'
import { failed, OK, type Reply } from '../../sheep/answer.js'
import { type Caller, park } from '../../sheep/caller.js'
import { SUSPECTS_MAX } from '../../sheep/equal/suspects.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { decodeOids, encodeOids, OID_BYTES } from '../../wire/sheepdog/oid-list.js'
import { objectFields } from '../../wire/sheepdog/requests.js'
import type { DoorContext } from './context.js'

/** SUSPECT: a write of this object failed on some copies. */
export function distrust(
  { node }: DoorContext,
  request: Frame,
  reply: Reply,
  caller: Caller,
): void {
  const oid = objectFields.oid(request)
  node.local.distrust(request.epoch, oid, (code) => reply(failed(code)), caller)
}

/** SETTLED: the sender's writes to these objects have ended everywhere. Meaningless from strangers. */
export function settled(
  { node }: DoorContext,
  request: Frame,
  reply: Reply,
  { origin }: Caller,
): void {
  if (origin !== undefined) node.inFlight.settled(origin, decodeOids(request.body))
  reply(origin === undefined ? failed(Code.INVALID_PARMS) : OK)
}

/** GET_SUSPECTS: what this node doubted when the epoch began; told only once it is in that epoch. */
export function suspects(context: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const { node } = context
  const epoch = objectFields.targetEpoch(request)
  if (((epoch - node.state.epoch) | 0) > 0) {
    park(node.state, caller, {
      again: () => suspects(context, request, reply, caller),
      givenUp: () => reply(failed(Code.AGAIN)),
    })
    return
  }
  const told = node.suspects.toldIn(epoch)
  if (told === undefined) reply(failed(Code.OLD_NODE_VER))
  else if (told.length * OID_BYTES > Math.min(request.dataLength, SUSPECTS_MAX * OID_BYTES)) {
    reply(failed(Code.BUFFER_SMALL))
  } else reply({ result: Code.SUCCESS, body: encodeOids(told) })
}
