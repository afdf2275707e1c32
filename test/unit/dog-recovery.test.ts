// `dog node recovery` and `dog cluster recover` against a sheep of memory: 1.0's words, and what is ours.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { encodeRecoveryState, type RecoveryState } from '../../src/wire/sheepdog/records.js'
import { asTranscript, readGolden, runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'

const IDLE = { inRecovery: false, phase: 0, finished: 0, total: 0 }

function threeSheep(): FakeSheep {
  const sheep = new FakeSheep(
    [0, 1, 2].map((zone) => ({
      ...{ host: '127.0.0.1', port: 7020 + zone, vnodes: 128, zone, spaceBytes: 1 << 30 },
    })),
  )
  let throttling: Buffer = Buffer.alloc(24)
  sheep.answers.set(Op.STAT_RECOVERY, () => ({ body: encodeRecoveryState(IDLE) }))
  sheep.answers.set(Op.GET_RECOVERY, () => ({ body: throttling }))
  sheep.answers.set(Op.SET_RECOVERY, ({ body }) => {
    throttling = body
    return {}
  })
  sheep.answers.set(Op.ENABLE_RECOVER, () => ({}))
  sheep.answers.set(Op.DISABLE_RECOVER, () => ({}))
  return sheep
}

function recovering(sheep: FakeSheep): void {
  const states: Record<number, RecoveryState> = {
    7020: { inRecovery: true, phase: 1, finished: 2, total: 97 },
    7021: { inRecovery: true, phase: 0, finished: 0, total: 0 },
    7022: { inRecovery: true, phase: 1, finished: 6, total: 97 },
  }
  sheep.answers.set(Op.STAT_RECOVERY, (_request, port) => ({
    body: encodeRecoveryState(states[port] ?? IDLE),
  }))
}

test('every command of the transcript answers as 1.0 did', async (t) => {
  const sheep = threeSheep()
  for (const { argv, directions, line, answer } of readGolden('recovery')) {
    if (directions.includes('recovering')) recovering(sheep)
    if (directions.includes('refusing')) {
      sheep.answers.set(Op.GET_RECOVERY, () => ({ result: Code.INVALID_PARMS }))
    }
    const result = await runDog(sheep, argv)
    t.is(asTranscript(result), answer.join('\n').trimEnd(), `recovery.txt:${line}`)
  }
})

test('the progress of one node is followed until its recovery is over', async (t) => {
  const sheep = threeSheep()
  const phases: RecoveryState[] = [
    { inRecovery: true, phase: 0, finished: 0, total: 0 },
    { inRecovery: true, phase: 1, finished: 3, total: 12 },
    { inRecovery: true, phase: 2, finished: 12, total: 12 },
    IDLE,
  ]
  sheep.answers.set(Op.STAT_RECOVERY, () => ({
    body: encodeRecoveryState(phases.shift() ?? IDLE),
  }))
  const { status, stdout } = await runDog(sheep, ['node', 'recovery', '-P'], {
    tty: true,
    columns: 50,
    waits: [],
  })
  t.is(status, 0)
  const shown = stdout.split('\r').map((text) => text.trimEnd())
  t.deepEqual(shown, [
    '',
    'preparing a checked object list...',
    ' 25.0 % [=====>              ] 3 / 12',
    'notifying a completion of recovery...',
    '100.0 % [====================] 12 / 12',
  ])
})

test('the table as JSON names the phase and the counts', async (t) => {
  const sheep = threeSheep()
  recovering(sheep)
  const { stdout } = await runDog(sheep, ['node', 'recovery', '--json'])
  const { nodes } = JSON.parse(stdout)
  t.deepEqual(nodes[1], {
    ...{ id: 1, host: '127.0.0.1', port: 7021, vnodes: 128, zone: 1 },
    ...{ phase: 'listing', finished: 0, total: 0 },
  })
  t.is(nodes[2].phase, 'recovering')
})

test('a node that does not tell is named, after the rows of the others', async (t) => {
  const sheep = threeSheep()
  recovering(sheep)
  const told = sheep.answers.get(Op.STAT_RECOVERY)!
  sheep.answers.set(Op.STAT_RECOVERY, (request, port) =>
    port === 7021 ? { result: Code.WAIT_FOR_JOIN } : told(request, port),
  )
  const { status, stdout, stderr } = await runDog(sheep, ['node', 'recovery', '-r'])
  t.is(status, 2)
  t.is(stdout.split('\n').length, 3)
  t.regex(stderr, /127\.0\.0\.1:7021: Waiting for other nodes/)
})
