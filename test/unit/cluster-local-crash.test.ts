/**
 * The local driver under SIGKILL at chosen moments, on a simulated host with a virtual clock.
 *
 * First every single file operation of a member's life is tried as the one to die in, writes torn at
 * several places. Then seeded runs with many deaths, stops and restarts, whose histories must agree.
 */
import test, { type ExecutionContext } from 'ava'
import { type Log, silentLog } from '../../src/base/log.js'
import { localDriver } from '../../src/cluster/local/driver.js'
import { Recorder } from './support/recorder.js'
import { type SimHost, type SimProcess, simHost } from './support/sim-host.js'

const DIRECTORY = '/cluster'

interface Member extends Recorder {
  readonly process: SimProcess
}

function member(host: SimHost, port: number, log: Log = silentLog): Member {
  const process = host.process()
  const driver = localDriver({ world: process, directory: DIRECTORY, log })
  return Object.assign(new Recorder(driver, port), { process })
}

/** Joins in the background; a rejection is kept as a line of its own. */
function startJoin(one: Member, request?: string): void {
  one.join(request).catch((error: unknown) => one.own.push(`rejected ${(error as Error).message}`))
}

function isIn(one: Member): boolean {
  return one.lines.length > 0
}

async function until(host: SimHost, condition: () => boolean, patienceMs = 20_000): Promise<void> {
  const deadline = host.now() + patienceMs
  while (!condition()) {
    if (host.now() > deadline) throw new Error('waited in vain')
    await host.advance(5)
  }
}

async function joined(host: SimHost, port: number): Promise<Member> {
  const one = member(host, port)
  startJoin(one)
  await until(host, () => isIn(one) || one.own.some((line) => line.startsWith('rejected')))
  return one
}

/** From the first line both have on, histories are the same. */
function agree(t: ExecutionContext, older: Recorder, younger: Recorder): void {
  const at = older.lines.indexOf(younger.lines[0] ?? 'nothing')
  t.true(at >= 0, `${younger.lines[0]} is in both`)
  t.deepEqual(older.lines.slice(at), younger.lines)
}

function count(lines: readonly string[], start: string): number {
  return lines.filter((line) => line.startsWith(start)).length
}

/** Everything a member does in its life; it may die anywhere in it. */
async function live(host: SimHost, victim: Member, bystander: Member): Promise<void> {
  startJoin(victim)
  await host.advance(120)
  if (isIn(victim) && victim.process.alive) {
    victim.onBlocked = () => victim.unblock('unblocked')
    victim.notify('one')
    victim.driver.block()
    victim.notify('x'.repeat(5000))
  }
  bystander.notify('meanwhile')
  await host.advance(120)
  if (isIn(victim) && victim.process.alive)
    await Promise.race([victim.driver.leave(), host.advance(100)])
}

async function dieAt(t: ExecutionContext, operation: number, share: number): Promise<boolean> {
  const host = simHost()
  const [one, two] = [await joined(host, 1), await joined(host, 2)]
  const victim = member(host, 3)
  victim.process.killAt(operation, share)
  await live(host, victim, one)
  const died = !victim.process.alive
  // Back at once, on the same address; then everything works and all agree.
  const back = await joined(host, 3)
  for (const each of [one, two, back]) each.notify(`end ${each.node.port}`)
  await until(host, () =>
    [one, two, back].every(({ lines }) => count(lines, 'notified 2 end') === 1),
  )
  await until(host, () =>
    [one, two, back].every(({ lines }) => count(lines, 'notified 3 end') === 1),
  )
  agree(t, one, two)
  agree(t, two, back)
  t.is(count(one.lines, 'left 3'), count(one.lines, 'accepted 3') - 1)
  t.deepEqual(
    [one, two, back].flatMap(({ own }) => own.filter((line) => /lost|rej/.test(line))),
    [],
  )
  return died
}

for (const share of [0, 0.3, 0.9, 1]) {
  test(`a member may die in any file operation, ${share * 100} % of it done`, async (t) => {
    let operation = 1
    while (await dieAt(t, operation, share)) operation++
    t.true(operation > 60, `${operation} operations were tried`)
  })
}

test('the first member may die in any file operation of its join', async (t) => {
  for (const share of [0, 0.5, 1]) {
    for (let operation = 1; operation < 40; operation++) {
      const host = simHost()
      const first = member(host, 1)
      first.process.killAt(operation, share)
      startJoin(first)
      await host.advance(20)
      first.process.kill()
      const next = await joined(host, 2)
      t.is(next.lines[0], 'accepted 2 [2] seen 0 by 2', `operation ${operation}`)
    }
  }
})

/** Small generator (mulberry32): the seed replays the run. */
function generator(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0
    let value = Math.imul(state ^ (state >>> 15), 1 | state)
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value
    return ((value ^ (value >>> 14)) >>> 0) % limit
  }
}

class Chaos {
  readonly host = simHost()
  readonly alive: Member[] = []
  readonly everybody: Member[] = []
  /** The lines each member's own messages must make, in order. */
  readonly sent = new Map<Member, string[]>()
  readonly below: (limit: number) => number
  #nextPort = 1
  #message = 0

  constructor(seed: number) {
    this.below = generator(seed)
  }

  spawn(port = this.#nextPort++): void {
    const one = member(this.host, port)
    one.onBlocked = () => one.unblock(this.#text(one, 'unblock'))
    // No two accepts may look alike: each answer names the life it is for.
    one.joinRequest = (_joiner, _members, request) => request
    this.alive.push(one)
    this.everybody.push(one)
    startJoin(one, `life ${this.everybody.length}`)
  }

  step(): void {
    const dice = this.below(20)
    const one = this.alive[this.below(this.alive.length)]
    if (one === undefined || (dice === 0 && this.alive.length < 6)) this.spawn()
    else if (dice === 1) this.#kill(one)
    else if (dice === 2) one.process.killAt(1 + this.below(30), this.below(10) / 10)
    else if (dice === 3) this.#pause(one)
    else if (!isIn(one) || !one.process.alive) this.bury()
    else if (dice < 8) one.driver.block()
    else one.notify(this.#text(one, '.'.repeat(this.below(dice === 19 ? 100_000 : 100))))
  }

  #text(one: Member, padding: string): string {
    const text = `${this.#message++} ${padding}`
    const sent = this.sent.get(one) ?? []
    this.sent.set(one, [...sent, `notified ${one.node.port} ${text.slice(0, 60)}`])
    return text
  }

  /** Half of the killed are restarted at once on their old address. */
  #kill(one: Member): void {
    one.process.kill()
    this.bury()
    if (this.below(2) === 0) this.spawn(one.node.port)
  }

  #pause(one: Member): void {
    one.process.stop()
    this.host.process().clock.after(this.below(400), () => one.process.resume())
  }

  bury(): void {
    const living = this.alive.filter(({ process }) => process.alive)
    this.alive.splice(0, this.alive.length, ...living)
  }
}

for (let seed = 1; seed <= 12; seed++) {
  test(`histories agree after deaths at random moments, seed ${seed}`, async (t) => {
    const chaos = new Chaos(seed)
    for (let i = 0; i < 3; i++) chaos.spawn()
    for (let i = 0; i < 500; i++) {
      chaos.step()
      await chaos.host.advance(chaos.below(12))
      chaos.bury()
    }
    if (chaos.alive.length === 0) chaos.spawn()
    for (const one of chaos.alive) one.process.killAt(-1, 0)
    await until(chaos.host, () => chaos.alive.every(isIn), 40_000)
    await chaos.host.advance(1000)
    for (const one of chaos.alive) one.notify('end')
    const isThrough = ({ lines }: Member): boolean => count(lines.slice(-12), 'notified') >= 1
    await until(chaos.host, () => chaos.alive.every(isThrough))
    await chaos.host.advance(500)
    compareAll(t, chaos)
  })
}

/** The living agree to the end; what a dead one saw is a piece of what its elders saw. */
function compareAll(t: ExecutionContext, chaos: Chaos): void {
  const order: Member[] = chaos.everybody.filter(isIn)
  t.true(order.length >= 3)
  for (const younger of order) {
    for (const older of order) {
      const at = older.lines.indexOf(younger.lines[0]!)
      if (older === younger || at < 0) continue
      const common = older.lines.slice(at)
      const length = Math.min(common.length, younger.lines.length)
      t.deepEqual(common.slice(0, length), younger.lines.slice(0, length))
    }
  }
  for (const one of chaos.alive) {
    t.is(one.lines.at(-1), chaos.alive[0]?.lines.at(-1))
    t.false(one.own.some((line) => line.startsWith('lost')))
    const mine = one.lines.filter((line) => line.startsWith(`notified ${one.node.port} `))
    t.deepEqual(mine.slice(0, -1), chaos.sent.get(one) ?? [], 'each own message once, in order')
    checkComings(t, one)
  }
}

/** No address comes twice without going in between: each death is one leave. */
function checkComings(t: ExecutionContext, one: Member): void {
  const present = new Set(/\[(.*)\]/.exec(one.lines[0] ?? '')?.[1]?.split(' '))
  for (const line of one.lines.slice(1)) {
    const [kind, port] = line.split(' ')
    if (kind === 'accepted') t.false(present.has(port!), line)
    if (kind === 'left') t.true(present.has(port!), line)
    if (kind === 'accepted') present.add(port!)
    if (kind === 'left') present.delete(port!)
  }
}

test('a stopped member stays a member; joins wait for it and go on with it', async (t) => {
  const host = simHost()
  const [one, two] = [await joined(host, 1), await joined(host, 2)]
  one.process.stop()
  const three = member(host, 3)
  startJoin(three)
  await host.advance(2000)
  t.false(isIn(three))
  t.is(count(two.lines, 'left'), 0)
  one.process.resume()
  await until(host, () => isIn(three))
  agree(t, two, three)
})

test('a death during a join is ordered after the accept', async (t) => {
  const host = simHost()
  const [one, two] = [await joined(host, 1), await joined(host, 2)]
  const doomed = await joined(host, 3)
  one.process.stop()
  const four = member(host, 4)
  startJoin(four)
  await host.advance(200)
  doomed.process.kill()
  await host.advance(500)
  one.process.resume()
  await until(host, () => count(four.lines, 'left 3') === 1)
  // The answer was made with 3 among the members, so the joiner has to see it go.
  t.deepEqual(four.lines, ['accepted 4 [1 2 3 4] seen 3 by 1', 'left 3 [1 2 4]'])
  agree(t, two, four)
})

test('a join that a stopped member does not answer is given up with a reason', async (t) => {
  const host = simHost()
  const [one, two] = [await joined(host, 1), await joined(host, 2)]
  one.process.stop()
  const three = await (async () => {
    const late = member(host, 3)
    startJoin(late)
    await until(host, () => late.own.length > 0, 60_000)
    return late
  })()
  t.regex(three.own[0] ?? '', /rejected cannot join the cluster: .*stopped/)
  one.process.resume()
  two.notify('on it goes')
  await until(host, () => count(one.lines, 'notified 2 on') === 1)
  agree(t, one, two)
  t.is(count(one.lines, 'accepted 3'), 0)
})

test('a process stopped with the lock in hand halts the order; nothing is lost after it', async (t) => {
  const host = simHost()
  const complaints: string[] = []
  const log = { ...silentLog, error: (event: string) => complaints.push(event) }
  const one = member(host, 1, log)
  startJoin(one)
  await until(host, () => isIn(one))
  const two = await joined(host, 2)
  const holder = host.process()
  const lock = holder.files.lock(`${DIRECTORY}/lock`)
  one.notify('waits')
  await host.advance(60_000)
  t.is(count(two.lines, 'notified'), 0)
  t.true(complaints.includes('cluster.lock_held'))
  t.deepEqual([...one.own.slice(2), ...two.own], [])
  lock?.release()
  await until(host, () => count(two.lines, 'notified 1 waits') === 1)
  agree(t, one, two)
})

test('clusters in different directories know nothing of each other', async (t) => {
  const host = simHost()
  const world = host.process()
  const other = new Recorder(localDriver({ world, directory: '/other', log: silentLog }), 1)
  const one = await joined(host, 1)
  const join = other.join()
  await host.advance(500)
  await join
  one.notify('here')
  other.notify('there')
  world.kill()
  await host.advance(500)
  t.deepEqual(one.lines, ['accepted 1 [1] seen 0 by 1', 'notified 1 here'])
})

test('a removed directory is a lost cluster, for every member once', async (t) => {
  const host = simHost()
  const [one, two] = [await joined(host, 1), await joined(host, 2)]
  host.remove(DIRECTORY)
  await host.advance(200)
  for (const each of [one, two]) {
    t.is(count(each.own, 'lost'), 1)
    t.throws(() => each.notify('x'))
  }
})

test('a full disk costs the writer its membership, with the reason', async (t) => {
  const host = simHost()
  const [one, two] = [await joined(host, 1), await joined(host, 2)]
  host.capacityBytes = [...host.files.values()].reduce((sum, { bytes }) => sum + bytes.length, 300)
  one.notify('x'.repeat(1000))
  await host.advance(20)
  t.regex(one.own.at(-1) ?? '', /^lost ENOSPC/)
  host.capacityBytes = Number.MAX_SAFE_INTEGER
  await until(host, () => two.lines.includes('left 1 [2]'))
  two.notify('fine')
  await until(host, () => count(two.lines, 'notified 2 fine') === 1)
  t.is(count(two.lines, 'notified 1'), 0)
})

test('the log stays small, and a member that falls far behind is told so', async (t) => {
  const host = simHost()
  const [one, two] = [await joined(host, 1), await joined(host, 2)]
  const three = await joined(host, 3)
  three.process.stop()
  const used = (): number =>
    [...host.files.values()].reduce((sum, { bytes }) => sum + bytes.length, 0)
  for (let i = 0; i < 40; i++) {
    for (let j = 0; j < 10; j++) one.driver.notify(Buffer.alloc(120_000, 'x'))
    await host.advance(100)
  }
  t.true(used() < 24 * 1024 * 1024, `${used()} bytes`)
  t.is(count(two.lines, 'notified'), 400)
  three.process.resume()
  await host.advance(200)
  t.is(count(three.own, 'lost'), 1)
  await host.advance(500)
  two.notify('end')
  await until(host, () => count(one.lines, 'notified 2 end') === 1)
  await host.advance(200)
  t.true(used() < 4 * 1024 * 1024, `${used()} bytes when nobody lags`)
})

test('a log damaged by a crash of the machine is started anew by the first joiner', async (t) => {
  const host = simHost()
  const one = await joined(host, 1)
  one.process.kill()
  for (const [path, inode] of host.files) {
    if (path.includes('/events.')) inode.bytes = Buffer.alloc(inode.bytes.length)
  }
  const two = await joined(host, 2)
  t.deepEqual(two.lines, ['accepted 2 [2] seen 0 by 2'])
})

test('a damaged log that living members use is not replaced', async (t) => {
  const host = simHost()
  const one = await joined(host, 1)
  one.process.stop()
  for (const [path, inode] of host.files) {
    if (path.includes('/events.')) inode.bytes = Buffer.alloc(inode.bytes.length)
  }
  const two = await joined(host, 2)
  t.regex(two.own[0] ?? '', /^rejected .*damaged, 1 nodes still use it/)
})
