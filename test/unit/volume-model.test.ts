/**
 * Random use of a volume over an unkind cluster, held to a model (support/register-model.ts). Many
 * operations are in flight at once; snapshots, growth, failures and a power cut happen in between. A
 * failing run prints its seed: SEED=n runs that one alone, SEEDS=n runs as many.
 */
import { setImmediate as turn } from 'node:timers/promises'
import test from 'ava'
import { Code, codeName } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import { volumeSource } from '../../src/volume/source.js'
import type { Volume } from '../../src/volume/volume.js'
import { FakeCluster } from './support/fake-cluster.js'
import { RegisterModel, type Span } from './support/register-model.js'

const OBJECT = 1 << 20
const SIZE = 4 * OBJECT + 300_000
const REGISTER = 40_009
const STEPS = 300
const IN_FLIGHT_MAX = 10

interface Conditions {
  readonly failures: number
  readonly snapshots: number
}

class Run {
  readonly #cluster: FakeCluster
  readonly #model = new RegisterModel(SIZE, OBJECT, REGISTER)
  readonly #conditions: Conditions
  readonly complaints: string[] = []
  #volume!: Volume
  #inFlight = 0
  /** When the reads in flight began. */
  readonly #reading = new Set<number>()
  #snapshots = 0

  constructor(seed: number, conditions: Conditions) {
    this.#cluster = new FakeCluster({ seed, atOnce: [0, 0.3, 0.8, 1][seed % 4]! })
    this.#conditions = conditions
  }

  async run(): Promise<void> {
    const cluster = this.#cluster
    const { dice } = cluster
    cluster.addVdi('Alice', SIZE)
    const source = volumeSource({
      objects: cluster,
      vdis: cluster,
      clock: cluster.clock,
      log: silentLog,
    })
    this.#volume = await this.#settle(source.open('Alice'))
    cluster.failures = this.#conditions.failures
    for (let i = 0; i < STEPS && this.complaints.length === 0; i++) {
      if (this.#inFlight < IN_FLIGHT_MAX && dice.chance(0.6)) this.#operate()
      if (dice.chance(this.#conditions.snapshots)) this.#snapshot()
      for (let n = dice.below(4); n > 0 && cluster.pending > 0; n--) cluster.step()
      if (dice.chance(0.5)) await turn()
      if (i % 50 === 0) this.#model.prune(Math.min(this.#model.now(), ...this.#reading))
    }
    if (dice.chance(0.5)) this.#powerCut()
    cluster.failures = 0
    await this.#drain()
    this.#readAll()
    await this.#drain()
    await this.#settle(this.#volume.close())
    this.#powerCut()
    if (cluster.working('Alice').lockedBy !== 0) this.complaints.push('the lock was kept')
    if (this.#conditions.failures === 0 && cluster.leaked().length > 0) {
      this.complaints.push(`leaked ${cluster.leaked().length} objects`)
    }
    this.complaints.push(...cluster.violations)
  }

  async #settle<T>(promise: Promise<T>): Promise<T> {
    let isOver = false
    const over = (): void => {
      isOver = true
    }
    promise.then(over, over)
    for (let i = 0; i < 10_000 && !isOver; i++) {
      if (this.#cluster.pending > 0) this.#cluster.step()
      await turn()
    }
    if (!isOver) throw new Error('a promise never settled')
    return promise
  }

  async #drain(): Promise<void> {
    for (let i = 0; i < 10_000 && this.#inFlight > 0; i++) {
      while (this.#cluster.pending > 0) this.#cluster.step()
      await turn()
    }
    if (this.#inFlight > 0) this.complaints.push(`${this.#inFlight} operations never completed`)
  }

  #span(): Span {
    const { dice } = this.#cluster
    const { registers } = this.#model
    const from = dice.below(registers)
    const length = dice.chance(0.8) ? 1 + dice.below(3) : 1 + dice.below(registers)
    return { from, until: Math.min(registers, from + length) }
  }

  /** Often made of whole objects, or one would rarely be unmapped. */
  #zeroSpan(): Span {
    const { dice } = this.#cluster
    if (dice.chance(0.3)) return this.#span()
    const first = dice.below(5)
    const end = Math.min(SIZE, (first + 1 + dice.below(2)) * OBJECT)
    return this.#model.spanOf(first * OBJECT, end)
  }

  #operate(): void {
    const roll = this.#cluster.dice.below(100)
    if (roll < 35) this.#read(this.#span())
    else if (roll < 70) this.#write()
    else if (roll < 80) this.#zero()
    else if (roll < 86) this.#discard()
    else if (roll < 93) this.#flush()
    else this.#extents()
  }

  #ended(what: string, code: Code): void {
    this.#inFlight--
    const isExpected =
      code === Code.SUCCESS ||
      (this.#conditions.failures > 0 && (code === Code.EIO || code === Code.NETWORK_ERROR))
    if (!isExpected) this.complaints.push(`${what} ended with ${codeName(code)}`)
  }

  #read(span: Span): void {
    const { offset, length } = this.#model.bytesOf(span)
    const into = Buffer.alloc(length, 0xee)
    const began = this.#model.now()
    this.#inFlight++
    this.#reading.add(began)
    this.#volume.read(offset, into, (code) => {
      this.#ended('read', code)
      this.#reading.delete(began)
      if (code !== Code.SUCCESS) return
      const complaint = this.#model.check(span, into, began)
      if (complaint !== undefined) this.complaints.push(`read: ${complaint}`)
    })
  }

  #write(): void {
    const span = this.#span()
    const fua = this.#cluster.dice.chance(0.2)
    const { write, data } = this.#model.begin(span, false)
    this.#inFlight++
    this.#volume.write(this.#model.bytesOf(span).offset, data, fua, (code) => {
      this.#ended('write', code)
      if (code !== Code.SUCCESS) return
      write.ended = this.#model.now()
      write.durable = fua
    })
  }

  #zero(): void {
    const { dice } = this.#cluster
    const span = this.#zeroSpan()
    const fua = dice.chance(0.3)
    const { write } = this.#model.begin(span, true)
    const options = { fua, mayUnmap: dice.chance(0.6), fastOnly: false }
    this.#inFlight++
    this.#volume.zero(this.#model.bytesOf(span), options, (code) => {
      this.#ended('zero', code)
      if (code !== Code.SUCCESS) return
      write.ended = this.#model.now()
      write.durable = fua
    })
  }

  #discard(): void {
    const span = this.#zeroSpan()
    const range = this.#model.bytesOf(span)
    const fua = this.#cluster.dice.chance(0.3)
    const first = Math.ceil(range.offset / OBJECT) * OBJECT
    const until = range.offset + range.length
    const end = until === SIZE ? SIZE : Math.floor(until / OBJECT) * OBJECT
    const whole = first < end ? this.#model.spanOf(first, end) : { from: 0, until: 0 }
    const { write } = this.#model.begin(whole, true)
    this.#inFlight++
    this.#volume.discard(range, fua, (code) => {
      this.#ended('discard', code)
      if (code !== Code.SUCCESS) return
      write.ended = this.#model.now()
      write.durable = fua
    })
  }

  #flush(): void {
    const began = this.#model.now()
    this.#inFlight++
    this.#volume.flush((code) => {
      this.#ended('flush', code)
      if (code === Code.SUCCESS) this.#model.flushed(began)
    })
  }

  /** A hole reads as zeros, so zeros must be allowed wherever one is reported. */
  #extents(): void {
    const span = this.#span()
    const { offset, length } = this.#model.bytesOf(span)
    let at = offset
    for (const extent of this.#volume.extents({ offset, length })) {
      const holes = this.#model.spanOf(at, at + extent.length)
      at += extent.length
      if (!extent.hole || holes.from >= holes.until) continue
      const zeros = Buffer.alloc(this.#model.bytesOf(holes).length)
      const complaint = this.#model.check(holes, zeros, this.#model.now())
      if (complaint !== undefined) this.complaints.push(`extents: ${complaint}`)
    }
    if (at !== offset + length) this.complaints.push('extents of another length')
  }

  /** The snapshot shows a state the disk may have had at that moment, and keeps it. */
  #snapshot(): void {
    const { vdi, contents } = this.#bound()
    this.#snapshots++
    this.#cluster.snapshot('Alice', `s${this.#snapshots}`, (old) => {
      const bytes = contents(old.header.vid)
      const all = { from: 0, until: this.#model.registers }
      const complaint = this.#model.check(all, bytes, this.#model.now())
      if (complaint !== undefined) this.complaints.push(`snapshot: ${complaint}`)
      this.#kept.push({ vid: old.header.vid, bytes })
      if (this.#kept.length > 1 && this.#cluster.dice.chance(0.5)) {
        this.#checkKept()
        this.#cluster.removeVdi(vdi(this.#kept.shift()!.vid).header.vid)
      }
    })
  }

  readonly #kept: { readonly vid: number; readonly bytes: Buffer }[] = []

  #bound() {
    const cluster = this.#cluster
    type Vid = Parameters<FakeCluster['vdi']>[0]
    return {
      vdi: (vid: number) => cluster.vdi(vid as Vid),
      contents: (vid: number) => cluster.contents(vid as Vid),
    }
  }

  #checkKept(): void {
    for (const { vid, bytes } of this.#kept) {
      if (!this.#bound().contents(vid).equals(bytes)) this.complaints.push('a snapshot changed')
    }
  }

  #readAll(): void {
    this.#checkKept()
    this.#read({ from: 0, until: this.#model.registers })
  }

  #powerCut(): void {
    const { vid } = this.#cluster.working('Alice').header
    const bytes = this.#cluster.contents(vid, 'stable')
    const complaint = this.#model.checkAfterPowerCut(bytes)
    if (complaint !== undefined) this.complaints.push(`after a power cut: ${complaint}`)
  }
}

async function runSeeds(
  count: number,
  conditions: Conditions,
  fail: (why: string) => void,
): Promise<void> {
  const { SEED, SEEDS } = process.env
  const first = Number(SEED ?? 1)
  const last = SEED === undefined ? Number(SEEDS ?? count) : first
  for (let seed = first; seed <= last; seed++) {
    const run = new Run(seed, conditions)
    try {
      await run.run()
    } catch (error) {
      run.complaints.push(String(error))
    }
    if (run.complaints.length > 0) fail(`SEED=${seed}: ${run.complaints.slice(0, 5).join('; ')}`)
  }
}

test('random use in peace matches the model', async (t) => {
  await runSeeds(8, { failures: 0, snapshots: 0 }, (why) => t.fail(why))
  t.pass()
})

test('snapshots during random use lose nothing', async (t) => {
  await runSeeds(16, { failures: 0, snapshots: 0.03 }, (why) => t.fail(why))
  t.pass()
})

test('failures and snapshots during random use break no promise', async (t) => {
  await runSeeds(24, { failures: 0.05, snapshots: 0.03 }, (why) => t.fail(why))
  t.pass()
})
