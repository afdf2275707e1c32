/**
 * The local driver in real processes on a real directory: members hammer the order while this test kills
 * (SIGKILL), stops and restarts them at seeded moments. At the end all histories must fit together.
 *
 * The moments are real time, so a seed does not replay a run exactly; it makes the plan.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { silentLog } from '../../src/base/log.js'
import type { ClusterDriver } from '../../src/cluster/driver.js'
import { localDriver } from '../../src/cluster/local/driver.js'
import { nodeWorld } from '../../src/world/node/world.js'
import type { Files } from '../../src/world/world.js'
import { type DriverHarness, driverSuite } from './support/driver-suite.js'

const CHILD = fileURLToPath(new URL('./support/cluster-child.js', import.meta.url))
const PATIENCE_MS = 20_000

interface Life {
  readonly child: ChildProcess
  readonly port: number
  readonly life: number
  readonly history: string
  isIn: boolean
  exited: boolean
}

class Arena {
  readonly directory = mkdtempSync(join(tmpdir(), 'sheepdog-cluster-'))
  readonly lives: Life[] = []
  #nextPort = 1

  get alive(): Life[] {
    return this.lives.filter(({ exited }) => !exited)
  }

  spawn(port = this.#nextPort++): void {
    const life = this.lives.length
    const history = join(this.directory, `history.${life}`)
    const cluster = join(this.directory, 'cluster')
    const child = fork(CHILD, [cluster, `${port}`, `${life}`, history])
    const one: Life = { child, port, life, history, isIn: false, exited: false }
    child.on('message', () => {
      one.isIn = true
    })
    child.on('exit', () => {
      one.exited = true
    })
    this.lives.push(one)
  }

  async kill(one: Life): Promise<void> {
    one.child.kill('SIGKILL')
    await until(() => one.exited)
  }

  tell(order: 'stop' | 'quit'): void {
    for (const { child } of this.alive) child.send(order)
  }

  linesOf(one: Life): string[] {
    if (!existsSync(one.history)) return []
    const text = readFileSync(one.history, 'utf8')
    return text.split('\n').slice(0, -1)
  }

  async close(): Promise<void> {
    for (const one of this.alive) await this.kill(one)
    rmSync(this.directory, { recursive: true })
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('waited in vain')
    await sleep(5)
  }
}

function generator(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}

async function torment(arena: Arena, below: (limit: number) => number): Promise<void> {
  for (let round = 0; round < 40; round++) {
    // However slow the machine is, most deaths hit a cluster at work, some a cluster being born.
    if (below(4) > 0) await until(() => arena.alive.filter(({ isIn }) => isIn).length >= 2)
    await sleep(20 + below(120))
    const { alive } = arena
    const one = alive[below(alive.length)]
    const dice = below(6)
    if (one === undefined || alive.length < 3 || (dice === 0 && alive.length < 5)) arena.spawn()
    else if (dice === 1) {
      one.child.kill('SIGSTOP')
      setTimeout(() => one.child.kill('SIGCONT'), below(300))
    } else if (dice < 5) {
      await arena.kill(one)
      arena.spawn(below(2) === 0 ? one.port : undefined)
    }
  }
}

for (const seed of [1, 2]) {
  test.serial(`processes killed at random moments agree, seed ${seed}`, async (t) => {
    t.timeout(90_000)
    const arena = new Arena()
    try {
      for (let i = 0; i < 4; i++) arena.spawn()
      await torment(arena, generator(seed))
      await until(() => arena.alive.length > 0 && arena.alive.every(({ isIn }) => isIn))
      await sleep(300)
      arena.tell('stop')
      await sleep(500)
      arena.alive[0]?.child.send('end')
      const sawEnd = (one: Life): boolean => arena.linesOf(one).at(-1)?.endsWith(' end') === true
      await until(() => arena.alive.every(sawEnd))
      compare(t, arena)
      t.log(summary(arena))
    } finally {
      await arena.close()
    }
  })
}

/** Every two histories that share a beginning are the same as far as both go; nothing is doubled. */
function compare(t: ExecutionContext, arena: Arena): void {
  const all = arena.lives.map((one) => ({ one, lines: arena.linesOf(one) }))
  const entered = all.filter(({ lines }) => lines.length > 0)
  t.true(entered.length > 10, 'many lives')
  for (const younger of entered) {
    for (const older of entered) {
      const at = older.lines.indexOf(younger.lines[0] ?? '')
      if (at < 0 || older === younger) continue
      const common = older.lines.slice(at)
      const length = Math.min(common.length, younger.lines.length)
      t.deepEqual(common.slice(0, length), younger.lines.slice(0, length))
    }
  }
  for (const { one, lines } of entered) {
    checkOwn(t, one, lines)
    checkComings(t, lines)
    t.false(existsSync(`${one.history}.lost`))
  }
  const survivors = entered.filter(({ one }) => !one.exited)
  t.is(new Set(survivors.map(({ lines }) => lines.at(-1))).size, 1)
}

/** The messages of a life are 0, 1, 2, ...: none lost, none doubled, none overtaken. */
function checkOwn(t: ExecutionContext, one: Life, lines: readonly string[]): void {
  const start = `notified ${one.port} ${one.life}.`
  const numbers = lines
    .filter((line) => line.startsWith(start))
    .map((line) => Number.parseInt(line.slice(start.length), 10))
  t.deepEqual(
    numbers,
    numbers.map((_, i) => i),
  )
}

/** Each death is one leave, and comes before the same address is back. */
function checkComings(t: ExecutionContext, lines: readonly string[]): void {
  const present = new Set(/\[(.*)\]/.exec(lines[0] ?? '')?.[1]?.split(' '))
  for (const line of lines.slice(1)) {
    const [kind, port = ''] = line.split(' ')
    if (kind === 'accepted') t.false(present.has(port), line)
    if (kind === 'left') t.true(present.has(port), line)
    if (kind === 'notified') continue
    const listed =
      /\[(.*)\]/
        .exec(line)?.[1]
        ?.split(' ')
        .filter((text) => text !== '') ?? []
    if (kind === 'accepted') present.add(port)
    if (kind === 'left') present.delete(port)
    t.deepEqual([...present].sort(), [...listed].sort())
  }
}

function summary(arena: Arena): string {
  const lines = arena.lives.map((one) => arena.linesOf(one).length)
  const total = lines.reduce((sum, count) => sum + count, 0)
  return `${arena.lives.length} lives, ${total} events seen`
}

test.serial('the files of the dead and what all have read are swept', async (t) => {
  const arena = new Arena()
  try {
    for (let i = 0; i < 3; i++) arena.spawn()
    await until(() => arena.alive.every(({ isIn }) => isIn))
    await sleep(1500)
    for (const one of arena.alive.slice(1)) await arena.kill(one)
    await sleep(1500)
    const cluster = join(arena.directory, 'cluster')
    const names = readdirSync(cluster)
    const bytes = names.reduce((sum, name) => sum + statSync(join(cluster, name)).size, 0)
    t.is(names.filter((name) => name.startsWith('member.')).length, 1)
    t.true(bytes < 6 * 1024 * 1024, `${bytes} bytes in ${names.join(' ')}`)
  } finally {
    await arena.close()
  }
})

/** The compliance suite on real files; a "killed process" is one whose locks are let go. */
function realFilesHarness(): DriverHarness {
  const directory = mkdtempSync(join(tmpdir(), 'sheepdog-cluster-'))
  const kills = new Map<ClusterDriver, () => void>()
  return {
    driver: () => {
      const world = nodeWorld()
      let dead = false
      const held = new Set<() => void>()
      const run = (fn: () => void) => () => {
        if (!dead) fn()
      }
      const lock = world.files.lock.bind(world.files)
      const files: Files = Object.assign(world.files, {
        lock: (path: string) => {
          const taken = lock(path)
          if (taken === undefined) return undefined
          held.add(taken.release)
          const release = (): void => {
            held.delete(taken.release)
            taken.release()
          }
          return { release }
        },
      })
      const watch = world.files.watch.bind(world.files)
      files.watch = (path, changed) => {
        const end = watch(path, run(changed))
        held.add(end)
        return end
      }
      const clock = {
        now: () => world.clock.now(),
        monotonic: () => world.clock.monotonic(),
        soon: (fn: () => void) => world.clock.soon(run(fn)),
        after: (delayMs: number, fn: () => void) => world.clock.after(delayMs, run(fn)),
      }
      const driver = localDriver({ world: { files, clock }, directory, log: silentLog })
      kills.set(driver, () => {
        dead = true
        for (const letGo of held) letGo()
      })
      return driver
    },
    kill: (driver) => kills.get(driver)?.(),
    until,
    close: () => {
      for (const kill of kills.values()) kill()
      rmSync(directory, { recursive: true })
      return Promise.resolve()
    },
  }
}

driverSuite('local, real files', realFilesHarness)
