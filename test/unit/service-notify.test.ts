/** What a service manager is told, and when; and the status line of a sheep. */
import test from 'ava'
import { silentLog } from '../../src/base/log.js'
import { watchAnswers } from '../../src/bin/service/answers.js'
import { type ServiceNotifier, startNotifier } from '../../src/bin/service/notifier.js'
import { watchdogOf } from '../../src/bin/service/service.js'
import { type NodeFacts, statusLine } from '../../src/bin/service/status-line.js'
import { nodeKey } from '../../src/model/node.js'
import { Frame, HEADER_BYTES } from '../../src/wire/sheepdog/frame.js'

const HEAD = Buffer.alloc(HEADER_BYTES)

/** Time that stands still until it is told to pass: the notifier's timers never end by themselves. */
class HandClock {
  #now = 0
  readonly #timers = new Set<{ readonly at: number; readonly fn: () => void }>()

  monotonic(): number {
    return this.#now
  }

  after(delayMs: number, fn: () => void): () => void {
    const timer = { at: this.#now + delayMs, fn }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  async run(ms: number): Promise<void> {
    const end = this.#now + ms
    for (;;) {
      const [next] = [...this.#timers].sort((a, b) => a.at - b.at)
      if (next === undefined || next.at > end) break
      this.#timers.delete(next)
      this.#now = next.at
      next.fn()
      await new Promise((resolve) => void setImmediate(resolve))
    }
    this.#now = end
  }
}

class Manager {
  readonly clock = new HandClock()
  heard: string[] = []
  /** Its queue is full. */
  isBusy = false
  status = 'Starting'
  /** Trips through the thread pool that have not come back. */
  readonly trips: (() => void)[] = []
  poolHangs = false

  start(watchdogMs?: number): ServiceNotifier {
    return startNotifier({
      send: (lines) => {
        if (this.isBusy) throw Object.assign(new Error('EAGAIN'), { code: 'EAGAIN' })
        this.heard.push(lines)
      },
      clock: this.clock,
      log: silentLog,
      status: () => this.status,
      monotonicUsec: () => 12345n,
      watchdogMs,
      probe: () =>
        this.poolHangs
          ? new Promise<void>((resolve) => void this.trips.push(resolve))
          : Promise.resolve(),
    })
  }

  take(): string[] {
    const { heard } = this
    this.heard = []
    return heard
  }
}

const EXTEND = 'EXTEND_TIMEOUT_USEC=60000000'

test('a long start says what it does and asks for more time; READY comes when it is ready', async (t) => {
  const manager = new Manager()
  const service = manager.start()
  t.deepEqual(manager.take(), ['STATUS=Starting', EXTEND])
  manager.status = 'Opening the store'
  await manager.clock.run(1_000)
  t.deepEqual(manager.take(), ['STATUS=Opening the store'])
  await manager.clock.run(60_000)
  t.deepEqual(manager.take(), [EXTEND, EXTEND, EXTEND, EXTEND, EXTEND, EXTEND])
  manager.status = 'Serving'
  service.ready()
  t.deepEqual(manager.take(), ['READY=1\nSTATUS=Serving'])
  await manager.clock.run(60_000)
  t.deepEqual(manager.take(), [])
})

test('a stop asks for more time, but not for ever', async (t) => {
  const manager = new Manager()
  const service = manager.start()
  service.ready()
  manager.take()
  service.stopping()
  const [first] = manager.take()
  t.is(first, 'STOPPING=1\nSTATUS=Stopping')
  await manager.clock.run(1_000_000)
  const asked = manager.take().filter((lines) => lines === EXTEND).length
  t.true(asked >= 25 && asked <= 31, `${asked}`)
  service.end('Stopped')
  t.deepEqual(manager.take(), ['STATUS=Stopped'])
  await manager.clock.run(60_000)
  t.deepEqual(manager.take(), [])
})

test('what a busy manager did not take goes with the next, in its newest form', async (t) => {
  const manager = new Manager()
  manager.isBusy = true
  const service = manager.start()
  service.ready()
  manager.status = 'Serving'
  await manager.clock.run(3_000)
  manager.isBusy = false
  await manager.clock.run(1_000)
  const [lines] = manager.take()
  t.deepEqual(lines?.split('\n').sort(), [EXTEND, 'READY=1', 'STATUS=Serving'])
})

test('a reload is announced and ended, also when it fails', (t) => {
  const manager = new Manager()
  const service = manager.start()
  manager.take()
  t.throws(() =>
    service.reload(() => {
      throw new Error('no such directory')
    }),
  )
  t.deepEqual(manager.take(), ['RELOADING=1\nMONOTONIC_USEC=12345', 'READY=1'])
})

test('the watchdog hears a beat three times in its time, and none while the thread pool hangs', async (t) => {
  const manager = new Manager()
  const service = manager.start(30_000)
  service.ready()
  await manager.clock.run(0)
  t.true(manager.take().length > 0)
  await manager.clock.run(30_000)
  t.deepEqual(manager.take(), ['WATCHDOG=1', 'WATCHDOG=1', 'WATCHDOG=1'])
  manager.poolHangs = true
  await manager.clock.run(60_000)
  t.deepEqual(manager.take(), [])
  manager.poolHangs = false
  for (const comeBack of manager.trips) comeBack()
  await manager.clock.run(20_000)
  t.true(manager.take().includes('WATCHDOG=1'))
  service.end()
})

test('a status is one line', (t) => {
  const manager = new Manager()
  manager.status = 'bad\nREADY=1'
  manager.start()
  t.is(manager.take()[0], 'STATUS=bad READY=1')
})

test('the watchdog counts for the process it is set for', (t) => {
  t.is(watchdogOf({ WATCHDOG_USEC: '30000000' }, 7), 30_000)
  t.is(watchdogOf({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '7' }, 7), 30_000)
  t.is(watchdogOf({ WATCHDOG_USEC: '30000000', WATCHDOG_PID: '8' }, 7), undefined)
  t.is(watchdogOf({ WATCHDOG_USEC: '0' }, 7), undefined)
  t.is(watchdogOf({ WATCHDOG_USEC: 'soon' }, 7), undefined)
  t.is(watchdogOf({}, 7), undefined)
})

const SERVING: NodeFacts = {
  status: 'ok',
  formatted: true,
  isSure: true,
  epoch: 12,
  nodes: 3,
  zones: 3,
  copies: 3,
  missing: [],
  recovery: { inRecovery: false, phase: 0, finished: 0, total: 0 },
}

test('the status line says what is true of the node', (t) => {
  const line = (facts: Partial<NodeFacts>): string => statusLine({ ...SERVING, ...facts })
  t.is(line({}), 'Serving (epoch 12, 3 nodes)')
  t.is(line({ zones: 2, nodes: 2 }), 'Serving, 2 of 3 copies (epoch 12, 2 nodes)')
  t.is(
    line({ recovery: { inRecovery: true, phase: 2, finished: 12, total: 300 } }),
    'Serving, recovering 12/300 objects (epoch 12, 3 nodes)',
  )
  t.is(
    line({ recovery: { inRecovery: true, phase: 0, finished: 0, total: 0 } }),
    'Serving, recovering: looking what is missing (epoch 12, 3 nodes)',
  )
  t.is(line({ zones: 0, nodes: 1 }), 'Halted: no node stores objects (epoch 12, 1 node)')
  t.is(line({ isSure: false }), 'Not sure of its membership: serves nothing until it is')
  t.is(line({ formatted: false, nodes: 1 }), "Waiting for 'dog cluster format'; 1 node so far")
  const missing = [1, 2, 3, 4, 5, 6].map((i) => nodeKey({ host: '10.0.0.1', port: 7000 + i }))
  t.is(
    line({ status: 'wait', missing: missing.slice(0, 1) }),
    'Waiting for 1 node of epoch 12: 10.0.0.1:7001',
  )
  t.regex(line({ status: 'wait', missing }), /^Waiting for 6 nodes of epoch 12: .* and 1 more$/)
  t.is(line({ status: 'shutdown' }), 'The cluster is shut down')
})

test('no sheep answers: known when the next answer is due, and forgotten when it comes', async (t) => {
  const clock = new HandClock()
  const asked: (() => void)[] = []
  const access = {
    call: () => new Promise<Frame>((resolve) => void asked.push(() => resolve(new Frame(HEAD)))),
  }
  const answer = async (): Promise<void> => {
    asked.shift()?.()
    await new Promise((resolve) => void setImmediate(resolve))
  }
  const answers = watchAnswers(access, clock)
  await answer()
  await clock.run(5_000)
  t.true(answers.come)
  await clock.run(4_000)
  t.true(answers.come)
  await clock.run(60_000)
  t.false(answers.come)
  t.is(asked.length, 1)
  await answer()
  t.true(answers.come)
  t.is(asked.length, 1)
  answers.stop()
  await answer()
  await clock.run(60_000)
  t.is(asked.length, 0)
})
