// `dog vdi check`: 1.0's transcript, against nodes of which some have lost or changed their copy; and an exit status that tells.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { oidName } from '../../src/model/oid.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { setHashReply } from '../../src/wire/sheepdog/replies.js'
import { decodeForwardFields, objectFields } from '../../src/wire/sheepdog/requests.js'
import { asTranscript, type DogResult, readGolden, runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'

process.env.TZ = 'UTC'

/** The object the transcript is about; 7023 to 7025 own it. */
const OBJECT = '00d2758400000000'
const FIRST_PORT = 7020

interface Stage {
  readonly sheep: FakeSheep
  /** What each port has of the object, where that is not what all have. */
  readonly copies: Map<number, string>
  readonly repairs: { readonly from: number; readonly to: number }[]
  dog(...argv: string[]): Promise<DogResult>
}

async function stage(): Promise<Stage> {
  const sheep = new FakeSheep(
    Array.from({ length: 6 }, (_, i) => ({
      ...{ host: '127.0.0.1', port: FIRST_PORT + i, vnodes: 128, zone: i, spaceBytes: 1e9 },
    })),
  )
  sheep.nowMs = 1_795_253_998_000
  const dog = (...argv: string[]): Promise<DogResult> => runDog(sheep, argv, { waits: [] })
  await dog('cluster', 'format', '-c', '3')
  await dog('vdi', 'create', 'img', '20M')
  await runDog(sheep, ['vdi', 'write', 'img'], { stdin: Buffer.alloc(12 * 2 ** 20, 'x') })
  await dog('vdi', 'snapshot', 'img')
  const copies = new Map<number, string>()
  const repairs: { from: number; to: number }[] = []
  const copyAt = (name: string, port: number): string =>
    name === OBJECT ? (copies.get(port) ?? 'as written') : 'as written'
  sheep.answers.set(Op.EXIST, (request, port) => {
    const isLost = copyAt(oidName(objectFields.oid(request)), port) === 'lost'
    return { result: isLost ? Code.NO_OBJ : Code.SUCCESS }
  })
  sheep.answers.set(Op.GET_HASH, (request, port) => {
    const copy = copyAt(oidName(objectFields.oid(request)), port)
    if (copy === 'lost') return { result: Code.NO_OBJ }
    if (copy === 'broken') return { result: Code.EIO }
    const sha1 = Buffer.alloc(20)
    sha1.write(copy)
    return { union: (head) => void setHashReply(head, sha1) }
  })
  sheep.answers.set(Op.REPAIR_REPLICA, (request, port) => {
    const { port: from } = decodeForwardFields(request)
    repairs.push({ from, to: port })
    copies.set(port, copies.get(from) ?? 'as written')
    return {}
  })
  return { sheep, copies, repairs, dog }
}

test('every command of the transcript answers as 1.0 did', async (t) => {
  const { sheep, copies } = await stage()
  for (const { argv, directions, line, answer } of readGolden('check')) {
    for (const direction of directions) {
      const [what, ...ports] = direction.split(' ')
      for (const port of ports) copies.set(Number(port), what === 'lose' ? 'lost' : 'changed')
    }
    const result = await runDog(sheep, argv, { waits: [] })
    t.is(asTranscript(result), answer.join('\n').trimEnd(), `check.txt:${line}`)
  }
})

test('the majority is right, and the copy that is taken over is one of its', async (t) => {
  const { dog, copies, repairs } = await stage()
  copies.set(7025, 'changed')
  t.is((await dog('vdi', 'check', 'img')).status, 0)
  t.is(repairs.length, 1)
  t.is(repairs[0]?.to, 7025)
  t.not(repairs[0]?.from, 7025)
})

test('what cannot be made right is left alone, told of, and the exit status says so (1.0: 0)', async (t) => {
  const cases: readonly (readonly [Readonly<Record<number, string>>, string])[] = [
    [{ 7023: 'lost', 7024: 'lost', 7025: 'lost' }, `no node has ${OBJECT}\n`],
    [{ 7023: 'one', 7024: 'two', 7025: 'three' }, `no majority of ${OBJECT}\n`],
    [{ 7023: 'one', 7024: 'two', 7025: 'lost' }, `no majority of ${OBJECT}\n`],
    [{ 7023: 'broken', 7024: 'two' }, `127.0.0.1:7023 does not tell about ${OBJECT}: I/O error\n`],
  ]
  for (const [state, told] of cases) {
    const { dog, copies, repairs } = await stage()
    for (const [port, copy] of Object.entries(state)) copies.set(Number(port), copy)
    const { status, stdout, stderr } = await dog('vdi', 'check', 'img')
    t.is(stderr, told)
    t.is(stdout, 'finish check&repair img\n')
    t.is(status, 1)
    t.deepEqual(repairs, [])
  }
})

test('copies that differ from look to look are being written: nobody is repaired', async (t) => {
  const { dog, sheep, copies, repairs } = await stage()
  const usual = sheep.answers.get(Op.GET_HASH)!
  let looks = 0
  sheep.answers.set(Op.GET_HASH, (request, port) => {
    copies.set(7024, `written ${looks++}`)
    return usual(request, port)
  })
  const { status, stderr } = await dog('vdi', 'check', 'img')
  t.regex(stderr, new RegExp(`^${OBJECT} is being written, its copies were not compared\n`))
  t.is(status, 1)
  t.deepEqual(repairs, [])
})

test('a repair that fails names both nodes', async (t) => {
  const { dog, sheep, copies } = await stage()
  copies.set(7024, 'lost')
  sheep.answers.set(Op.REPAIR_REPLICA, () => ({ result: Code.NO_SPACE }))
  const { status, stderr, stdout } = await dog('vdi', 'check', 'img')
  t.is(
    stderr,
    `Response's result: Server has no space for new objects\n` +
      `failed to repair object ${OBJECT} from 127.0.0.1:7025 to 127.0.0.1:7024\n`,
  )
  t.is(stdout, 'finish check&repair img\n')
  t.is(status, 1)
})

test('of a coded volume lost fragments are found and named, and none is mixed up with a copy', async (t) => {
  const { dog, sheep } = await stage()
  sheep.setPolicy('img', 0x11)
  sheep.answers.set(Op.EXIST, (request) => {
    const isLost = objectFields.policy(request) === 0x11 && objectFields.fragment(request) === 2
    return { result: isLost ? Code.NO_OBJ : Code.SUCCESS }
  })
  const { status, stderr } = await dog('vdi', 'check', 'img')
  t.is(stderr.match(/missing 00d275840000000\d, copy index 2: it can be decoded/g)?.length, 3)
  t.is(status, 1)
  const { stdout } = await dog('vdi', 'check', '-e', 'img')
  t.regex(stdout, /\nimg lost 3 object\(s\)\.\n$/)
  sheep.answers.set(Op.EXIST, (request) => ({
    result: objectFields.fragment(request) > 0 ? Code.NO_OBJ : Code.SUCCESS,
  }))
  const lost = await dog('vdi', 'check', 'img')
  t.regex(
    lost.stderr,
    /failed to rebuild object 00d2758400000000\. 2 copies get lost, more than 1\n/,
  )
})

test('the cluster is checked volume by volume, snapshots by their id and tag', async (t) => {
  const { dog, copies } = await stage()
  await dog('vdi', 'create', 'other', '4M')
  copies.set(7024, 'lost')
  const { stdout, status } = await dog('cluster', 'check')
  t.is(
    stdout,
    'fix vdi other\nfinish check&repair other\n' +
      `fix snapshot img (id: 1, tag: "")\nfixed missing ${OBJECT}\nfinish check&repair img\n` +
      'fix vdi img\nfinish check&repair img\n',
  )
  t.is(status, 0)
})
