/** What a node tells of its recovery, and how fast it is told to go (protocol spec, section 10). */
import { Code } from '../../base/codes.js'
import { failed, OK, type Reply } from '../../sheep/answer.js'
import type { Frame } from '../../wire/sheepdog/frame.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import {
  decodeRecoveryThrottling,
  encodeRecoveryState,
  encodeRecoveryThrottling,
  RECOVERY_STATE_BYTES,
  RECOVERY_THROTTLING_BYTES,
} from '../../wire/sheepdog/records.js'
import type { DoorContext, Operation, OperationTable } from './context.js'

function state({ node }: DoorContext, request: Frame, reply: Reply): void {
  if (request.dataLength < RECOVERY_STATE_BYTES) reply(failed(Code.INVALID_PARMS))
  else reply({ result: Code.SUCCESS, body: encodeRecoveryState(node.recovery.progress()) })
}

function throttling({ node }: DoorContext, request: Frame, reply: Reply): void {
  if (request.dataLength < RECOVERY_THROTTLING_BYTES) reply(failed(Code.INVALID_PARMS))
  else {
    const body = encodeRecoveryThrottling(node.recovery.pace.throttling)
    reply({ result: Code.SUCCESS, body })
  }
}

function throttle({ node }: DoorContext, request: Frame, reply: Reply): void {
  if (request.body.length !== RECOVERY_THROTTLING_BYTES) {
    reply(failed(Code.INVALID_PARMS))
    return
  }
  try {
    const wanted = decodeRecoveryThrottling(request.body)
    node.recovery.pace.throttle(wanted)
    node.log.info('recovery.throttled', { max: wanted.max, intervalMs: wanted.intervalMs })
    reply(OK)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    reply(failed(Code.INVALID_PARMS))
  }
}

const inOrder: Operation['run'] = ({ node }, request, reply) => node.ops.submit(request, reply)

const running = (run: Operation['run']): Operation => ({ force: false, run })
const always = (run: Operation['run']): Operation => ({ force: true, run })

export const RECOVERY_OPERATIONS: OperationTable = new Map([
  [Op.STAT_RECOVERY, running(state)],
  [Op.GET_RECOVERY, always(throttling)],
  [Op.SET_RECOVERY, always(throttle)],
  [Op.ENABLE_RECOVER, running(inOrder)],
  [Op.DISABLE_RECOVER, running(inOrder)],
])
