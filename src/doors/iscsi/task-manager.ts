/** Task management (RFC 7143, section 11.5): answered when what was aborted can do nothing any more. */
import { TaskFunction, TaskResponse } from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import { Asc } from '../../wire/scsi/constants.js'
import type { Jobs } from './jobs.js'
import type { LogicalUnit } from './logical-unit.js'
import type { Output } from './output.js'

export interface TaskManagerOptions {
  readonly nexus: string
  readonly units: ReadonlyMap<number, LogicalUnit>
  readonly output: Output
  readonly jobs: Jobs
  coldReset(): void
  late(): void
}

export class TaskManager {
  /** Requests not answered yet. */
  waiting = 0
  readonly #options: TaskManagerOptions

  constructor(options: TaskManagerOptions) {
    this.#options = options
  }

  request(header: Buffer): void {
    const tag = pdu.tagOf(header)
    const what = pdu.flagsOf(header) & 0x7f
    this.waiting++
    void this.#perform(what, header).then((response) => {
      this.waiting--
      const { output, late, coldReset } = this.#options
      output.sendTaskResponse(tag, response)
      late()
      const isDone = response === TaskResponse.COMPLETE
      if (isDone && what === TaskFunction.TARGET_COLD_RESET) coldReset()
    })
  }

  async #perform(what: number, header: Buffer): Promise<number> {
    const { jobs, units, nexus } = this.#options
    const lun = pdu.lunOf(header)
    const unit = lun === undefined ? undefined : units.get(lun)
    switch (what) {
      case TaskFunction.ABORT_TASK: {
        const isThere = await jobs.abortTask(pdu.secondTag(header))
        return isThere ? TaskResponse.COMPLETE : TaskResponse.NO_TASK
      }
      case TaskFunction.ABORT_TASK_SET:
        if (unit === undefined) return TaskResponse.NO_LUN
        await jobs.abortOf(unit, nexus)
        return TaskResponse.COMPLETE
      case TaskFunction.CLEAR_TASK_SET:
        if (unit === undefined) return TaskResponse.NO_LUN
        unit.tellOthers(nexus, Asc.COMMANDS_CLEARED)
        await Promise.all([...unit.members].map((one) => one.abort(unit, nexus)))
        return TaskResponse.COMPLETE
      case TaskFunction.LUN_RESET:
        if (unit === undefined) return TaskResponse.NO_LUN
        await unit.reset(nexus, Asc.DEVICE_RESET)
        return TaskResponse.COMPLETE
      case TaskFunction.TARGET_WARM_RESET:
      case TaskFunction.TARGET_COLD_RESET:
        await Promise.all([...units.values()].map((one) => one.reset(nexus, Asc.BUS_RESET)))
        return TaskResponse.COMPLETE
      default:
        return TaskResponse.NOT_SUPPORTED
    }
  }
}
