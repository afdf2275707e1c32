/** An initiator's connection that another node passes on, because this one serves the volume. */
import { Code } from '../../base/codes.js'
import { failed, OK } from '../../sheep/answer.js'
import { decodeIscsiPath } from '../../wire/sheepdog/iscsi-path.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import type { Operation, OperationTable } from './context.js'

const passOn: Operation['run'] = ({ iscsi }, request, reply, caller) => {
  const path = decodeIscsiPath(request)
  const take = iscsi?.take
  if (take === undefined) {
    reply(failed(Code.NO_SUPPORT))
    return
  }
  const isAlone = caller.link?.handOver?.((connection) => take(connection, path)) ?? false
  reply(isAlone ? OK : failed(Code.INVALID_PARMS))
}

export const ISCSI_OPERATIONS: OperationTable = new Map([
  [Op.ISCSI_PATH, { force: false, isHarmless: true, run: passOn }],
])
