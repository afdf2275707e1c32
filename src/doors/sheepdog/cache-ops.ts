/** Operations on the object cache (cluster spec, section 16), and what nodes ask each other about it. */
import { Code, type Done } from '../../base/codes.js'
import { oidVid } from '../../model/oid.js'
import { failed, OK, type Reply } from '../../sheep/answer.js'
import type { Caller } from '../../sheep/caller.js'
import {
  CACHE_INFO_BYTES,
  decodeRightQuestion,
  deleteCacheMessage,
  encodeCacheInfo,
} from '../../wire/sheepdog/cache.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { Flag, Op } from '../../wire/sheepdog/opcodes.js'
import { objectFields } from '../../wire/sheepdog/requests.js'
import type { DoorContext, OperationTable } from './context.js'

/** A daemon without a cache says so: 0.9 answered INVALID_PARMS as well. */
function info({ node }: DoorContext, request: Frame, reply: Reply): void {
  const found = node.cache.info()
  if (found === undefined) reply(failed(Code.NO_CACHE))
  else if (request.dataLength !== CACHE_INFO_BYTES) reply(failed(Code.INVALID_PARMS))
  else reply({ result: Code.SUCCESS, body: encodeCacheInfo(found) })
}

function purge({ node }: DoorContext, request: Frame, reply: Reply): void {
  if (node.cache.info() === undefined) {
    reply(failed(Code.NO_CACHE))
    return
  }
  const vid = request.flags === Flag.WRITE ? oidVid(objectFields.oid(request)) : undefined
  node.cache.purge(vid).then(
    () => reply(OK),
    () => reply(failed(Code.EIO)),
  )
}

/** On every node. What the client put beside the id does not travel. */
function drop({ node }: DoorContext, request: Frame, reply: Reply): void {
  const vid = oidVid(objectFields.oid(request))
  node.ops.submit(deleteCacheMessage(vid), (answer) => {
    node.cache.purge(vid).then(
      () => reply(answer),
      () => reply(failed(Code.EIO)),
    )
  })
}

function right({ node }: DoorContext, request: Frame, reply: Reply, caller: Caller): void {
  const question = decodeRightQuestion(request)
  const done: Done = (code) => reply(failed(code))
  // Only members hold rights; anybody else could make a node give up what nobody wants.
  if (question === undefined || caller.origin === undefined) done(Code.INVALID_PARMS)
  else node.cache.answer(question, caller, done)
}

export const CACHE_OPERATIONS: OperationTable = new Map([
  [Op.GET_CACHE_INFO, { force: false, run: info }],
  [Op.CACHE_PURGE, { force: false, run: purge }],
  [Op.DELETE_CACHE, { force: false, run: drop }],
  [Op.CACHE_RIGHT, { force: false, isHarmless: true, run: right }],
])
