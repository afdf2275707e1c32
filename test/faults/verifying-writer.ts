/**
 * Somebody who uses a volume over NBD while nodes fail: writes, reads back and flushes all the time, checks
 * every byte against the model, and goes to another gateway when its own is gone. It says what it saw; what
 * of that may be excused by a fault in progress is for the referee to say.
 */
import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { BLOCK_BYTES, BlockModel } from './block-model.js'
import type { Dice } from './dice.js'
import { NbdClient, NbdLost, type NbdPlace, NbdRefused } from './nbd-client.js'

const WORKERS = 4
const BLOCKS_PER_WRITE_MAX = 4
const BLOCKS_PER_READ_MAX = 8
/** A share of writes goes to a few blocks, so that some are written again and again. */
const HOT_BLOCKS = 16
const REOPEN_MS = 250
const FAULTS_MAX = 50

export interface Gateway {
  readonly index: number
  readonly place: NbdPlace
}

/** What a writer has to judge its gateways by, and whom it tells. */
export interface Referee {
  /** Gateways one may try now, and where to begin. */
  gateways(): readonly Gateway[]
  /** A request failed or stayed without an answer. `sinceMs`: when the connection was opened. */
  trouble(gateway: Gateway, sinceMs: number, what: string): void
  /** Seconds on the run's clock, for histories. */
  now(): string
}

export interface WriterPlan {
  readonly exportName: string
  readonly volume: number
  readonly sizeBytes: number
  readonly blocks: number
  /** A write that is cut off may leave its sectors neither old nor new. */
  readonly sectorsMayTear: boolean
  readonly dice: Dice
  readonly referee: Referee
  /** Pause of each worker between two requests. */
  readonly paceMs: number
  /** How long a request may stay unanswered before the writer gives the connection up. */
  readonly patienceMs: number
}

export interface WriterCounts {
  writes: number
  reads: number
  flushes: number
  connections: number
  /** Answered with an error, or cut off. */
  failed: number
  slowestMs: number
  /** Longest time without an open connection. */
  longestGapMs: number
}

export class VerifyingWriter {
  readonly model: BlockModel
  readonly mismatches: string[] = []
  readonly counts: WriterCounts = {
    writes: 0,
    reads: 0,
    flushes: 0,
    connections: 0,
    failed: 0,
    slowestMs: 0,
    longestGapMs: 0,
  }
  readonly #plan: WriterPlan
  readonly #stride: number
  readonly #busy = new Set<number>()
  #client: NbdClient | undefined
  #stopping = false
  #work: Promise<void> | undefined

  constructor(plan: WriterPlan) {
    this.#plan = plan
    this.model = new BlockModel(
      plan.volume,
      plan.blocks,
      () => plan.referee.now(),
      plan.sectorsMayTear,
    )
    this.#stride = strideOf(plan)
  }

  get exportName(): string {
    return this.#plan.exportName
  }

  start(): void {
    this.#stopping = false
    this.#work = this.#run()
  }

  /** Ends when what is under way is answered; with `flush` everything is durable after. */
  async stop(): Promise<void> {
    this.#stopping = true
    await this.#work
  }

  /** Everything is about to be killed: what is in flight then counts as unanswered. */
  async killed(): Promise<void> {
    this.#stopping = true
    this.#client?.destroy('the whole cluster was killed')
    await this.#work
    this.model.lostUnflushed()
  }

  /** Reads every block through one gateway. */
  async readAll(gateway: Gateway): Promise<void> {
    const client = await NbdClient.open(gateway.place, this.#plan.exportName)
    try {
      for (const [first, count] of this.#runs(BLOCKS_PER_READ_MAX)) {
        const bytes = await client.read(this.#offsetOf(first), count * BLOCK_BYTES)
        this.#judge(first, bytes, `node ${gateway.index}, at the end`)
      }
    } finally {
      client.close()
    }
  }

  async #run(): Promise<void> {
    let lastOpenMs = performance.now()
    while (!this.#stopping) {
      const gateways = this.#plan.referee.gateways()
      const gateway = gateways.length === 0 ? undefined : this.#plan.dice.pick(gateways)
      const client = await this.#open(gateway)
      const nowMs = performance.now()
      this.counts.longestGapMs = Math.max(this.counts.longestGapMs, nowMs - lastOpenMs)
      if (gateway === undefined || client === undefined) {
        await pause(REOPEN_MS)
        continue
      }
      this.#client = client
      this.counts.connections++
      await this.#use(client, gateway, nowMs)
      lastOpenMs = performance.now()
    }
  }

  /** Undefined when this gateway does not serve the volume now: it may be dead, or another holds the lock. */
  #open(gateway: Gateway | undefined): Promise<NbdClient | undefined> {
    if (gateway === undefined) return Promise.resolve(undefined)
    return NbdClient.open(gateway.place, this.#plan.exportName).catch(() => undefined)
  }

  /** Works over one connection until it fails or the writer stops. */
  async #use(client: NbdClient, gateway: Gateway, sinceMs: number): Promise<void> {
    let told = false
    const failed = (error: unknown): void => {
      this.counts.failed++
      const what = error instanceof Error ? error.message : String(error)
      if (!(error instanceof NbdLost || error instanceof NbdRefused)) throw error
      // The first failure ends the connection, and tells; the next one may be of a better gateway.
      if (told) return
      told = true
      client.destroy(`given up after: ${what}`)
      if (!this.#stopping) this.#plan.referee.trouble(gateway, sinceMs, what)
    }
    const worker = async (): Promise<void> => {
      while (!this.#stopping && client.alive) {
        const request = this.#one(client, gateway)
        await this.#watched(client, request).catch(failed)
        await pause(this.#plan.paceMs)
      }
    }
    await Promise.all(Array.from({ length: WORKERS }, worker))
    if (!this.#stopping) failed(new NbdLost('the server closed the connection between requests'))
    client.close()
  }

  async #watched(client: NbdClient, request: Promise<void>): Promise<void> {
    const { patienceMs } = this.#plan
    const began = performance.now()
    const timer = setTimeout(() => client.destroy(`no answer for ${patienceMs} ms`), patienceMs)
    try {
      await request
    } finally {
      clearTimeout(timer)
      this.counts.slowestMs = Math.max(this.counts.slowestMs, performance.now() - began)
    }
  }

  async #one(client: NbdClient, gateway: Gateway): Promise<void> {
    const kind = this.#plan.dice.below(100)
    if (kind < 5) await this.#flush(client)
    else if (kind < 35) await this.#read(client, gateway)
    else await this.#write(client, gateway, kind < 45)
  }

  async #flush(client: NbdClient): Promise<void> {
    const mark = this.model.flushBegins()
    await client.flush()
    this.model.flushed(mark)
    this.counts.flushes++
  }

  async #write(client: NbdClient, gateway: Gateway, fua: boolean): Promise<void> {
    const span = this.#claim(BLOCKS_PER_WRITE_MAX)
    if (span === undefined) return
    const [first, count] = span
    const { generation, data } = this.model.begin(first, count)
    const by = `node ${gateway.index}`
    try {
      await client.write(this.#offsetOf(first), data, fua)
      this.model.acknowledged(first, count, generation, by)
      this.counts.writes++
    } catch (error) {
      this.model.unknown(first, count, generation, by)
      throw error
    } finally {
      this.#release(first, count)
    }
  }

  async #read(client: NbdClient, gateway: Gateway): Promise<void> {
    const span = this.#claim(BLOCKS_PER_READ_MAX)
    if (span === undefined) return
    const [first, count] = span
    try {
      const bytes = await client.read(this.#offsetOf(first), count * BLOCK_BYTES)
      this.#judge(first, bytes, `node ${gateway.index}`)
      this.counts.reads++
    } finally {
      this.#release(first, count)
    }
  }

  #judge(first: number, bytes: Buffer, by: string): void {
    const faults = this.model.check(first, bytes, by)
    const at = this.#offsetOf(first)
    const stamped = faults.map((fault) => {
      return `${this.#plan.referee.now()} run of blocks at byte ${at}: ${fault}`
    })
    this.mismatches.push(...stamped.slice(0, FAULTS_MAX - this.mismatches.length))
  }

  /** Some neighbouring blocks that nobody else is busy with; undefined when there are none at once. */
  #claim(most: number): readonly [number, number] | undefined {
    const { dice, blocks } = this.#plan
    const first = dice.below(4) === 0 ? dice.below(HOT_BLOCKS) : dice.below(blocks)
    const room = Math.min(1 + dice.below(most), this.#lastOfRow(first) + 1 - first)
    let count = 0
    while (count < room && !this.#busy.has(first + count)) count++
    if (count === 0) return undefined
    for (let i = first; i < first + count; i++) this.#busy.add(i)
    return [first, count]
  }

  #release(first: number, count: number): void {
    for (let i = first; i < first + count; i++) this.#busy.delete(i)
  }

  /** Blocks come in rows of BLOCKS_PER_READ_MAX neighbours; the rows lie evenly over the volume. */
  #lastOfRow(block: number): number {
    return (
      Math.min(this.#plan.blocks, block - (block % BLOCKS_PER_READ_MAX) + BLOCKS_PER_READ_MAX) - 1
    )
  }

  *#runs(most: number): Generator<readonly [number, number]> {
    for (let first = 0; first < this.#plan.blocks; first += most) {
      yield [first, Math.min(most, this.#plan.blocks - first)]
    }
  }

  #offsetOf(block: number): number {
    const row = Math.floor(block / BLOCKS_PER_READ_MAX)
    return row * this.#stride + (block % BLOCKS_PER_READ_MAX) * BLOCK_BYTES
  }
}

function strideOf({ sizeBytes, blocks }: WriterPlan): number {
  const rows = Math.ceil(blocks / BLOCKS_PER_READ_MAX)
  const stride = Math.floor(sizeBytes / rows / BLOCK_BYTES) * BLOCK_BYTES
  if (stride < BLOCKS_PER_READ_MAX * BLOCK_BYTES) throw new RangeError('the volume is too small')
  return stride
}
