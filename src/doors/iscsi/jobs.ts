/** The SCSI commands of one session: started, fed with data, ended, aborted. */
import type { BufferPool } from '../../base/buffer-pool.js'
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
import { Gathering } from './gathering.js'
import type { Incoming, Place } from './incoming.js'
import type { LogicalUnit } from './logical-unit.js'
import { NO_RESIDUAL, type Output, residualOf } from './output.js'
import type { Parameters } from './parameters.js'
import type { Plan } from './plan.js'
import { type Head, newHead, newTask, type Task } from './task.js'

export interface JobsOptions {
  readonly agreed: Parameters
  readonly nexus: string
  readonly group: number
  readonly targetName: string | undefined
  readonly units: ReadonlyMap<number, LogicalUnit>
  readonly output: Output
  readonly pool: BufferPool
  late(): void
  isBlocked(): boolean
}

type ReadPlan = Extract<Plan, { kind: 'read' }>
type TakePlan = Extract<Plan, { kind: 'take' }>

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
  /** Headers of commands that are over. */
  readonly #heads: Head[] = []

  constructor(options: JobsOptions) {
    this.#options = options
    this.#luns = [...options.units.keys()].sort((a, b) => a - b)
  }

  /** Commands that are not over. */
  get running(): number {
    return this.#tasks.size + this.#dying.size
  }

  /** Where the data behind a command's header is to go: at the beginning of all the command takes, if there is room. */
  placeOfCommand(header: Buffer, bytes: number): Place | undefined {
    const isWrite = (pdu.flagsOf(header) & CommandFlag.WRITE) !== 0
    const expected = pdu.secondTag(header)
    const isMore = isWrite && expected > bytes && expected <= ISCSI_LIMITS.transferBytesMax
    if (!isMore || this.#waiting.length > 0 || !this.#hasRoom(expected)) return undefined
    return { memory: this.#options.pool.take(expected), isOwn: true }
  }

  /** The same of a Data-Out PDU. */
  placeOfData(header: Buffer, bytes: number): Place | undefined {
    const task = this.#tasks.get(pdu.tagOf(header))
    if (task?.state !== 'gathering') return undefined
    const memory = task.gathering?.placeOf(header, bytes)
    return memory === undefined ? undefined : { memory, isOwn: false }
  }

  /** What is wrong with it, for those the connection does not survive. */
  command(incoming: Incoming, isImmediate: boolean): string | undefined {
    const { agreed, units, output } = this.#options
    const { hasAhs, bytes } = incoming
    const { header } = incoming.head
    const flags = pdu.flagsOf(header)
    const isOpen = (flags & FINAL) === 0
    const isWrite = (flags & CommandFlag.WRITE) !== 0
    if (this.#tasks.has(pdu.tagOf(header))) {
      output.reject(header, RejectReason.INVALID_FIELD)
      return undefined
    }
    const expected = isWrite ? pdu.secondTag(header) : 0
    if (bytes > 0 && !agreed.immediateData) return 'immediate data, which was not agreed on'
    if (bytes > Math.min(agreed.firstBurstBytesMax, expected)) {
      return 'more immediate data than agreed'
    }
    if (isOpen && (agreed.initialR2t || !isWrite))
      return 'unsolicited data, which was not agreed on'
    const lun = pdu.lunOf(header)
    const unit = lun === undefined ? undefined : units.get(lun)
    const isRead = (flags & CommandFlag.READ) !== 0
    const memory = incoming.takeMemory()
    const came = { isRead, isWrite, isCounted: !isImmediate, hasAhs, isOpen, memory, bytes }
    const task = newTask(incoming.takeHead(this.#heads.pop() ?? newHead()), unit, came)
    this.#tasks.set(task.tag, task)
    // There is room for more than what came.
    if (memory.length > bytes) this.#hold(task, memory.length)
    if (task.isCounted) this.counted++
    else this.uncounted++
    const isOrdered = (flags & CommandFlag.ATTRIBUTE) === TaskAttribute.ORDERED
    if (unit === undefined) this.#begin(task)
    else unit.order.enter(isOrdered, () => this.#begin(task))
    return undefined
  }

  /** Its turn on the unit has come. */
  #begin(task: Task): void {
    if (task.state === 'over') {
      task.unit?.order.leave()
      return
    }
    task.state = 'gathering'
    const dataBytes = task.isWrite ? task.expected : 0
    const plan = task.hasAhs ? undefined : this.#plan(task, dataBytes)
    if (plan === undefined) this.#end(task, INVALID_OPCODE, 0)
    else if (plan.kind === 'end') this.#end(task, plan.outcome, 0)
    else if (plan.kind === 'reply') this.#reply(task, plan.data)
    else if (plan.kind === 'read') {
      const bytes = Math.min(plan.length, task.isRead ? task.expected : 0)
      if (bytes === 0) this.#end(task, GOOD, plan.length)
      else if (this.#mayHold(bytes)) {
        this.#hold(task, bytes)
        this.#read(task, plan, bytes)
      } else this.#admit(task, bytes, () => this.#read(task, plan, bytes))
    } else if (plan.kind === 'run') {
      this.#start(task, plan.change, () => plan.run((outcome) => this.#end(task, outcome, 0)))
    } else this.#take(task, plan, dataBytes)
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
    const { unit, head } = task
    const { cdb } = head
    if (unit === undefined) return planOfNobody(cdb, this.#luns)
    return planOf({ unit, nexus, group, cdb, dataBytes, targetName, luns: this.#luns })
  }

  #reply(task: Task, data: Buffer): void {
    const room = task.isRead ? task.expected : 0
    const sent = data.subarray(0, room)
    if (sent.length === 0) this.#end(task, GOOD, data.length)
    else {
      if (this.#isOver(task)) {
        this.#options.output.sendData(task.tag, sent, residualOf(data.length, task.expected))
      }
      this.#leave(task)
    }
  }

  #read(task: Task, plan: ReadPlan, bytes: number): void {
    task.state = 'running'
    if (!plan.fua) this.#readNow(task, plan, bytes)
    else
      task.unit!.flush((outcome) => {
        if (outcome === GOOD) this.#readNow(task, plan, bytes)
        else this.#end(task, outcome, 0)
      })
  }

  #readNow(task: Task, { offset, length }: ReadPlan, bytes: number): void {
    const { output } = this.#options
    const into = output.reserveRead(task, bytes)
    task.unit!.read(offset, into, (outcome) => {
      const isGood = outcome === GOOD
      // Nobody is told: what was reserved for the answer is not needed.
      if (!isGood || task.fate !== 'answer') output.forgoRead(task)
      if (!isGood) {
        this.#end(task, outcome, 0)
        return
      }
      if (this.#isOver(task)) {
        output.sendRead(task, task.tag, bytes, residualOf(length, task.expected))
      }
      this.#leave(task)
    })
  }

  #take(task: Task, plan: TakePlan, dataBytes: number): void {
    const { agreed, pool } = this.#options
    const want = Math.min(plan.bytes, dataBytes)
    const { memory, bytes, isOpen } = task
    const ended = (outcome: Outcome): void => this.#end(task, outcome, plan.bytes)
    if (bytes === want && !isOpen) {
      const data = memory.length === want ? memory : memory.subarray(0, want)
      this.#start(task, plan.change, () => plan.run(data, ended))
      return
    }
    const options = { want, expected: dataBytes, agreed, pool, isOpen }
    const gathering = new Gathering(options, memory, bytes)
    task.gathering = gathering
    const run = (): void => {
      this.#allocate(task, gathering)
      this.#start(task, plan.change, () => plan.run(gathering.data, ended))
    }
    task.run = run
    if (gathering.isComplete) run()
    else if (gathering.hasRoom) this.#ask(task, gathering)
    else
      this.#admit(task, want, () => {
        this.#allocate(task, gathering)
        this.#ask(task, gathering)
      })
  }

  /** Sees that there is memory for all the command takes. */
  #allocate(task: Task, gathering: Gathering): void {
    const memory = gathering.allocate()
    if (memory === task.memory) return
    if (task.memory.length > 0) this.#options.pool.give(task.memory)
    task.memory = memory
  }

  /** Data-Out of any command; of none when that has ended meanwhile, and passed over then. `data` is borrowed. */
  dataOut(header: Buffer, data: Buffer): void {
    const task = this.#tasks.get(pdu.tagOf(header))
    if (task === undefined) return
    const { gathering } = task
    if (gathering === undefined || task.state !== 'gathering') return
    const taken = gathering.take(header, data)
    if (taken === 'complete') task.run?.()
    else if (taken === 'wrong') this.#end(task, BAD_DATA, 0)
    else if (gathering.hasRoom) this.#ask(task, gathering)
  }

  #ask(task: Task, gathering: Gathering): void {
    const { output } = this.#options
    for (;;) {
      const transfer = gathering.ask(() => {
        this.#transferTag = (this.#transferTag + 1) % 0x7fffffff
        return this.#transferTag
      })
      if (transfer === undefined) return
      output.sendR2t(task.tag, task.head.header, transfer)
      this.#options.late()
    }
  }

  #hasRoom(bytes: number): boolean {
    return this.#held === 0 || this.#held + bytes <= ISCSI_LIMITS.sessionBytesMax
  }

  /** Nobody waits, and there is memory. */
  #mayHold(bytes: number): boolean {
    return this.#waiting.length === 0 && this.#hasRoom(bytes) && !this.#options.isBlocked()
  }

  #hold(task: Task, bytes: number): void {
    task.held += bytes
    this.#held += bytes
  }

  /** Runs `go` when there is memory for it; the first of all always has it. */
  #admit(task: Task, bytes: number, go: () => void): void {
    this.#waiting.push({ task, bytes, go })
    this.grant()
  }

  grant(): void {
    for (;;) {
      const [first] = this.#waiting
      if (first === undefined || this.#options.isBlocked()) return
      const { task, bytes, go } = first
      if (!this.#hasRoom(bytes)) return
      this.#waiting.shift()
      if (task.state === 'over') continue
      this.#hold(task, bytes)
      go()
    }
  }

  #end(task: Task, outcome: Outcome, moves: number): void {
    if (this.#isOver(task)) {
      const moved = outcome === GOOD || moves > 0 ? moves : 0
      this.#options.output.sendResponse(task.tag, outcome, residualOf(moved, task.expected))
    }
    this.#leave(task)
  }

  /** It is over. True: somebody wants to know how it ended. Then `leave`. */
  #isOver(task: Task): boolean {
    if (task.state === 'over') throw new Error('a command ended twice')
    // What data is received into while a command is aborted may be written to later: it is left to the collector.
    const memory =
      task.state === 'running' || task.gathering === undefined ? task.memory : undefined
    if (task.change !== undefined) task.unit!.leftBehind.ended(task.change)
    this.#forget(task)
    if (memory !== undefined && memory.length > 0) this.#options.pool.give(memory)
    if (task.fate === 'aborted' && !this.#isEnded) {
      this.#options.output.sendResponse(task.tag, ABORTED_BY_OTHERS, NO_RESIDUAL)
    }
    return task.fate === 'answer'
  }

  #leave(task: Task): void {
    const told = task.over
    if (told !== undefined) {
      task.over = undefined
      for (const fn of told) fn()
    }
    task.unit?.order.leave()
    this.#options.late()
    if (this.#waiting.length > 0) this.grant()
    if (this.#idle.length > 0) this.#checkIdle()
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
    this.#heads.push(task.head)
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
    // The end of one before it may have let it go, and it is over.
    if (task.state === 'over') return Promise.resolve()
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
      this.#isOver(task)
      this.#leave(task)
    } else {
      // Leaves the unit's order when its turn comes.
      this.#forget(task)
      if (task.memory.length > 0) this.#options.pool.give(task.memory)
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
  return new Promise((resolve) => {
    task.over = [...(task.over ?? []), resolve]
  })
}
