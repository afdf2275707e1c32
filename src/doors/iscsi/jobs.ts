/** The SCSI commands of one session: started, fed with data, ended, aborted. */

import type { ByteRange } from '../../volume/volume.js'
import {
  CommandFlag,
  FINAL,
  ISCSI_LIMITS,
  RejectReason,
  TaskAttribute,
} from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import { Status } from '../../wire/scsi/constants.js'
import { GOOD, INVALID_OPCODE, type Outcome } from '../../wire/scsi/sense.js'
import { BAD_DATA, planOf, planOfNobody } from './commands.js'
import type { LogicalUnit } from './logical-unit.js'
import { NO_RESIDUAL, type Output, residualOf } from './output.js'
import type { Parameters } from './parameters.js'
import type { Plan } from './plan.js'
import { Gathering, newTask, type Task } from './task.js'

export interface JobsOptions {
  readonly agreed: Parameters
  readonly nexus: string
  readonly group: number
  readonly targetName: string | undefined
  readonly units: ReadonlyMap<number, LogicalUnit>
  readonly output: Output
  late(): void
  isBlocked(): boolean
}

const ABORTED_BY_OTHERS: Outcome = { status: Status.TASK_ABORTED }

export class Jobs {
  /** Commands that take a place in the window, and immediate ones. */
  counted = 0
  uncounted = 0
  readonly #options: JobsOptions
  readonly #luns: readonly number[]
  readonly #tasks = new Map<number, Task>()
  /** Aborted ones that are still at work. */
  readonly #dying = new Set<Task>()
  /** Starts that wait for memory, in order. */
  #waiting: { readonly task: Task; readonly bytes: number; readonly go: () => void }[] = []
  #held = 0
  #transferTag = 0
  #idle: (() => void)[] = []
  #isEnded = false

  constructor(options: JobsOptions) {
    this.#options = options
    this.#luns = [...options.units.keys()].sort((a, b) => a - b)
  }

  /** Commands that are not over. */
  get running(): number {
    return this.#tasks.size + this.#dying.size
  }

  /** What is wrong with it, for those the connection does not survive. */
  command(
    header: Buffer,
    data: Buffer,
    how: { readonly isImmediate: boolean; readonly hasAhs: boolean },
  ): string | undefined {
    const { agreed, units, output } = this.#options
    const flags = pdu.flagsOf(header)
    const isOpen = (flags & FINAL) === 0
    const isRead = (flags & CommandFlag.READ) !== 0
    const isWrite = (flags & CommandFlag.WRITE) !== 0
    const lun = pdu.lunOf(header)
    const unit = lun === undefined ? undefined : units.get(lun)
    const task = newTask(header, unit, { isRead, isCounted: !how.isImmediate })
    if (this.#tasks.has(task.tag)) {
      output.reject(header, RejectReason.INVALID_FIELD)
      return undefined
    }
    const most = Math.min(agreed.firstBurstBytesMax, isWrite ? task.expected : 0)
    if (data.length > 0 && !agreed.immediateData) return 'immediate data, which was not agreed on'
    if (data.length > most) return 'more immediate data than agreed'
    if (isOpen && (agreed.initialR2t || !isWrite))
      return 'unsolicited data, which was not agreed on'
    this.#tasks.set(task.tag, task)
    if (task.isCounted) this.counted++
    else this.uncounted++
    const begin = (): void => this.#begin(task, { data, isOpen, isWrite, hasAhs: how.hasAhs })
    const attribute = flags & CommandFlag.ATTRIBUTE
    if (unit === undefined) begin()
    else unit.order.enter(attribute === TaskAttribute.ORDERED, begin)
    return undefined
  }

  /** Its turn on the unit has come. */
  #begin(
    task: Task,
    came: {
      readonly data: Buffer
      readonly isOpen: boolean
      readonly isWrite: boolean
      readonly hasAhs: boolean
    },
  ): void {
    if (task.state === 'over') {
      task.unit?.order.leave()
      return
    }
    const { agreed } = this.#options
    task.state = 'gathering'
    const dataBytes = came.isWrite ? task.expected : 0
    const plan = came.hasAhs ? undefined : this.#plan(task, dataBytes)
    if (plan === undefined) this.#end(task, INVALID_OPCODE, 0)
    else if (plan.kind === 'end') this.#end(task, plan.outcome, 0)
    else if (plan.kind === 'reply') this.#reply(task, plan.data)
    else if (plan.kind === 'read') this.#admit(task, plan.length, () => this.#read(task, plan))
    else if (plan.kind === 'run') {
      this.#start(task, plan.change, () => plan.run((outcome) => this.#end(task, outcome, 0)))
    } else {
      const want = Math.min(plan.bytes, dataBytes)
      const gathering = new Gathering({ want, expected: dataBytes }, agreed, came.data, came.isOpen)
      task.gathering = gathering
      const run = (): void =>
        this.#start(task, plan.change, () =>
          plan.run(gathering.data, (outcome) => this.#end(task, outcome, plan.bytes)),
        )
      task.run = run
      if (gathering.isComplete) run()
      else
        this.#admit(task, want, () => {
          gathering.allocate()
          this.#ask(task, gathering)
        })
    }
  }

  /** What a session that is gone has left under way ends before the same bytes are changed again. */
  #start(task: Task, change: ByteRange | undefined, go: () => void): void {
    const start = (): void => {
      task.state = 'running'
      go()
    }
    task.change = change
    if (change === undefined) start()
    else task.unit!.leftBehind.begin(change, start)
  }

  #plan(task: Task, dataBytes: number): Plan {
    const { nexus, group, targetName = '' } = this.#options
    const { unit, cdb } = task
    if (unit === undefined) return planOfNobody(cdb, this.#luns)
    return planOf({ unit, nexus, group, cdb, dataBytes, targetName, luns: this.#luns })
  }

  #reply(task: Task, data: Buffer): void {
    const room = task.isRead ? task.expected : 0
    const sent = data.subarray(0, room)
    if (sent.length === 0) this.#end(task, GOOD, data.length)
    else this.#finish(task, () => this.#sendData(task, sent, data.length))
  }

  #sendData(task: Task, sent: Buffer, moves: number): void {
    this.#options.output.sendData(task.tag, sent, residualOf(moves, task.expected))
  }

  #read(
    task: Task,
    plan: { readonly offset: number; readonly length: number; readonly fua: boolean },
  ): void {
    task.state = 'running'
    if (!plan.fua) this.#readNow(task, plan)
    else
      task.unit!.flush((outcome) => {
        if (outcome === GOOD) this.#readNow(task, plan)
        else this.#end(task, outcome, 0)
      })
  }

  #readNow(
    task: Task,
    { offset, length }: { readonly offset: number; readonly length: number },
  ): void {
    const { agreed, output } = this.#options
    const bytes = Math.min(length, task.isRead ? task.expected : 0)
    if (bytes === 0) {
      this.#end(task, GOOD, length)
      return
    }
    const isOne = bytes <= agreed.sendBytesMax && bytes <= agreed.burstBytesMax
    const into = isOne ? output.reserveRead(task, bytes) : Buffer.allocUnsafeSlow(bytes)
    task.unit!.read(offset, into, (outcome) => {
      const isSent = outcome === GOOD && task.fate === 'answer'
      if (isOne && !isSent) output.forgoRead(task)
      if (outcome !== GOOD) this.#end(task, outcome, 0)
      else
        this.#finish(task, () => {
          if (isOne) output.sendRead(task, task.tag, bytes, residualOf(length, task.expected))
          else this.#sendData(task, into, length)
        })
    })
  }

  /** Data-Out of any command; of none when that has ended meanwhile, and passed over then. */
  dataOut(header: Buffer, data: Buffer): void {
    const task = this.#tasks.get(pdu.tagOf(header))
    if (task === undefined) return
    const { gathering } = task
    if (gathering === undefined || task.state !== 'gathering') return
    const taken = gathering.take(header, data)
    if (taken === 'complete') task.run?.()
    else if (taken === 'wrong') this.#end(task, BAD_DATA, 0)
    else if (task.held > 0) this.#ask(task, gathering)
  }

  #ask(task: Task, gathering: Gathering): void {
    const { output } = this.#options
    for (;;) {
      const transfer = gathering.ask(() => {
        this.#transferTag = (this.#transferTag + 1) % 0x7fffffff
        return this.#transferTag
      })
      if (transfer === undefined) return
      output.sendR2t(task.tag, task.header, transfer)
      this.#options.late()
    }
  }

  /** Runs `go` when there is memory for it; the first of all always has it. */
  #admit(task: Task, bytes: number, go: () => void): void {
    this.#waiting.push({ task, bytes, go })
    this.grant()
  }

  grant(): void {
    const { isBlocked } = this.#options
    for (;;) {
      const [first] = this.#waiting
      if (first === undefined || isBlocked()) return
      const { task, bytes, go } = first
      const isFull = this.#held > 0 && this.#held + bytes > ISCSI_LIMITS.sessionBytesMax
      if (isFull) return
      this.#waiting.shift()
      if (task.state === 'over') continue
      task.held = Math.max(bytes, 1)
      this.#held += task.held
      go()
    }
  }

  #end(task: Task, outcome: Outcome, moves: number): void {
    this.#finish(task, () => {
      const residual =
        outcome === GOOD || moves > 0 ? residualOf(moves, task.expected) : failed(task.expected)
      this.#options.output.sendResponse(task.tag, outcome, residual)
    })
  }

  /** It is over: answered when somebody wants to know. */
  #finish(task: Task, answer: () => void): void {
    if (task.state === 'over') throw new Error('a command ended twice')
    const { fate, over } = task
    if (task.change !== undefined) task.unit!.leftBehind.ended(task.change)
    this.#forget(task)
    if (fate === 'answer') answer()
    else if (fate === 'aborted' && !this.#isEnded) {
      this.#options.output.sendResponse(task.tag, ABORTED_BY_OTHERS, NO_RESIDUAL)
    }
    task.over = []
    for (const told of over) told()
    task.unit?.order.leave()
    this.#options.late()
    this.grant()
    this.#checkIdle()
  }

  #forget(task: Task): void {
    task.state = 'over'
    if (!this.#dying.delete(task)) this.#tasks.delete(task.tag)
    if (task.isCounted) this.counted--
    else this.uncounted--
    this.#held -= task.held
    task.held = 0
    task.gathering = undefined
    task.run = undefined
  }

  /** False: there is no such command. Resolves when it can do nothing any more. */
  async abortTask(tag: number): Promise<boolean> {
    const task = this.#tasks.get(tag)
    const dying = [...this.#dying].find((one) => one.tag === tag)
    if (task !== undefined) await this.#abort(task, 'silence')
    else if (dying !== undefined) await isOver(dying)
    return task !== undefined || dying !== undefined
  }

  /** All commands to `unit`, because of something `by` did; others than their own initiator tell so. */
  async abortOf(unit: LogicalUnit, by: string): Promise<void> {
    const fate = by === this.#options.nexus ? 'silence' : 'aborted'
    const tasks = [...this.#tasks.values()].filter((task) => task.unit === unit)
    // Those that were aborted before may still be at work.
    const dying = [...this.#dying].filter((task) => task.unit === unit)
    await Promise.all([...tasks.map((task) => this.#abort(task, fate)), ...dying.map(isOver)])
  }

  /** Commands that wait for their turn or for data. */
  async abortGathering(): Promise<void> {
    const tasks = [...this.#tasks.values()].filter((task) => task.state === 'gathering')
    await Promise.all(tasks.map((task) => this.#abort(task, 'silence')))
  }

  /** Nobody hears answers any more; resolves when no command can do anything any more. */
  async end(): Promise<void> {
    this.#isEnded = true
    for (const { state, change, unit } of [...this.#tasks.values(), ...this.#dying]) {
      if (state === 'running' && change !== undefined) unit!.leftBehind.add(change)
    }
    for (const task of [...this.#tasks.values()]) void this.#abort(task, 'silence')
    await this.idle()
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<void> {
    if (this.running === 0) return Promise.resolve()
    return new Promise((resolve) => this.#idle.push(resolve))
  }

  #checkIdle(): void {
    if (this.running > 0) return
    const told = this.#idle
    this.#idle = []
    for (const fn of told) fn()
  }

  #abort(task: Task, fate: 'silence' | 'aborted'): Promise<void> {
    task.fate = fate
    if (task.state === 'running') {
      if (fate === 'silence') {
        // Its tag is free for another command.
        this.#tasks.delete(task.tag)
        this.#dying.add(task)
      }
      return isOver(task)
    }
    if (task.state === 'gathering') {
      // It may have all its data, and wait for what somebody has left behind.
      if (task.change !== undefined) task.unit!.leftBehind.drop(task.change)
      this.#finish(task, () => undefined)
    } else {
      // Leaves the unit's order when its turn comes.
      this.#forget(task)
      if (fate === 'aborted') {
        this.#options.output.sendResponse(task.tag, ABORTED_BY_OTHERS, NO_RESIDUAL)
        this.#options.late()
      }
      this.#checkIdle()
    }
    return Promise.resolve()
  }
}

/** Resolves when the command, which is at work, can do nothing any more. */
function isOver(task: Task): Promise<void> {
  return new Promise((resolve) => task.over.push(resolve))
}

/** Of a command that moved nothing. */
function failed(expected: number): ReturnType<typeof residualOf> {
  return residualOf(0, expected)
}
