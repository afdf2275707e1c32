// `dog node md` against a sheep of memory: 1.0's words, and what is ours.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { encodeMdInfo } from '../../src/wire/sheepdog/records.js'
import { asTranscript, readGolden, runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'

// The samples were taken twice: sizes of the first and the second round.
const FREE = [79498362880, 79498346496, 79498346496, 79498350592, 79498350592, 79498354688]
const USED = [74723328, 70569984, 66416640, 58916864, 59015168, 79929344]

function sixSheep(): FakeSheep {
  const sheep = new FakeSheep(
    USED.map((_, zone) => ({
      ...{ host: '127.0.0.1', port: 7020 + zone, vnodes: 128, zone, spaceBytes: 1 << 30 },
    })),
  )
  sheep.answers.set(Op.MD_INFO, (_request, port) => {
    const i = port - 7020
    const disk = { index: 0, path: `/srv/s/${i}/obj` }
    return { body: encodeMdInfo([{ ...disk, usedBytes: USED[i]!, freeBytes: FREE[i]! }]) }
  })
  sheep.answers.set(Op.MD_PLUG, () => ({}))
  sheep.answers.set(Op.MD_UNPLUG, () => ({}))
  return sheep
}

test('every command of the transcript answers as 1.0 did', async (t) => {
  const sheep = sixSheep()
  for (const { argv, directions, stdin, line, answer } of readGolden('md')) {
    if (directions.includes('refusing')) {
      sheep.answers.set(Op.MD_PLUG, () => ({ result: Code.UNKNOWN }))
      sheep.answers.set(Op.MD_UNPLUG, () => ({ result: Code.UNKNOWN }))
    }
    if (argv.includes('-A') && argv.includes('-r')) FREE[0] = 79498346496
    const result = await runDog(sheep, argv, stdin === undefined ? {} : { stdin })
    t.is(asTranscript(result), answer.join('\n').trimEnd(), `md.txt:${line}`)
  }
})

test('the paths go as they are, and only a yes sends them', async (t) => {
  const sheep = sixSheep()
  const sent: string[] = []
  for (const opcode of [Op.MD_PLUG, Op.MD_UNPLUG]) {
    sheep.answers.set(opcode, ({ body }) => {
      sent.push(body.toString())
      return {}
    })
  }
  await runDog(sheep, ['node', 'md', 'plug', '/a,/b'], { stdin: 'no\n' })
  await runDog(sheep, ['node', 'md', 'plug', '/a,/b'], { stdin: 'yes\n' })
  await runDog(sheep, ['node', 'md', 'unplug', '-f', '/c'])
  t.deepEqual(sent, ['/a,/b\0', '/c\0'])
})

test('a sheep that is recovering says so', async (t) => {
  const sheep = sixSheep()
  sheep.answers.set(Op.MD_UNPLUG, () => ({ result: Code.NODE_IN_RECOVERY }))
  const { status, stderr } = await runDog(sheep, ['node', 'md', 'unplug', '-f', '/c'])
  t.is(status, 1)
  t.regex(stderr, /Targeted node is in recovery\nFailed to execute request/)
})

test('programs get the same figures', async (t) => {
  const { stdout } = await runDog(sixSheep(), ['node', 'md', 'info', '-A', '--json'])
  const { nodes } = JSON.parse(stdout)
  t.is(nodes.length, 6)
  t.deepEqual(nodes[1], {
    ...{ id: 1, host: '127.0.0.1', port: 7021 },
    disks: [
      {
        ...{ id: 0, path: '/srv/s/1/obj', sizeBytes: USED[1]! + FREE[1]! },
        ...{ usedBytes: USED[1], freeBytes: FREE[1] },
      },
    ],
  })
})
