// `dog vdi read` and `write` move exactly the bytes they were given, through snapshots taken
// meanwhile.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { vidHash } from '../../src/model/hash.js'
import { asVid, dataOid, inodeOid } from '../../src/model/oid.js'
import { Flag, Op } from '../../src/wire/sheepdog/opcodes.js'
import { objectFields } from '../../src/wire/sheepdog/requests.js'
import { runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'

const MIB = 1024 * 1024
const node = { host: '127.0.0.1', port: 7020, vnodes: 128, zone: 1, spaceBytes: 1 }

async function formatted(): Promise<FakeSheep> {
  const sheep = new FakeSheep([node])
  sheep.nowMs = 1_795_253_998_000
  await runDog(sheep, ['cluster', 'format', '-c', '1'])
  await runDog(sheep, ['vdi', 'create', 'w', '20M'])
  sheep.requests.length = 0
  return sheep
}

/** Bytes that tell where they came from. */
function pattern(length: number, seed = 0): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0; i < length; i += 4) {
    bytes.writeUInt32LE((i * 2_654_435_761 + seed) >>> 0, Math.min(i, length - 4))
  }
  return bytes
}

async function* chunks(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

const readAll = async (sheep: FakeSheep, ...more: string[]): Promise<Buffer> =>
  (await runDog(sheep, ['vdi', 'read', 'w', ...more])).bytes

test('what is written from any chunking is read back, across objects', async (t) => {
  for (const size of [4096, 65_537, 5 * MIB]) {
    const sheep = await formatted()
    const data = pattern(10 * MIB + 1234, size)
    const { status } = await runDog(sheep, ['vdi', 'write', 'w', '3M'], {
      stdin: chunks(data, size),
    })
    t.is(status, 0)
    const disk = await readAll(sheep)
    t.is(disk.length, 20 * MIB)
    t.true(disk.subarray(3 * MIB, 3 * MIB + data.length).equals(data), `chunks of ${size}`)
    t.true(disk.subarray(0, 3 * MIB).equals(Buffer.alloc(3 * MIB)))
    const rest = disk.subarray(3 * MIB + data.length)
    t.true(rest.equals(Buffer.alloc(rest.length)))
  }
})

test('a short input changes its own bytes and nothing behind them', async (t) => {
  const sheep = await formatted()
  const before = pattern(20 * MIB)
  await runDog(sheep, ['vdi', 'write', 'w'], { stdin: chunks(before, MIB) })
  sheep.requests.length = 0
  await runDog(sheep, ['vdi', 'write', 'w', '5M'], { stdin: 'hello\n' })
  const after = await readAll(sheep)
  Buffer.from('hello\n').copy(before, 5 * MIB)
  t.true(after.equals(before))
})

test('an input that ends with an object does not touch the next one', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', 'w'], { stdin: chunks(pattern(4 * MIB), MIB) })
  t.is(sheep.slot(vidHash('w'), 0), vidHash('w'))
  t.is(sheep.slot(vidHash('w'), 1), 0)
})

test('a length longer than the input writes the input; a shorter one stops there', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', 'w', '0', '1M'], { stdin: 'abc' })
  await runDog(sheep, ['vdi', 'write', 'w', '10', '2'], { stdin: 'defgh' })
  t.is((await readAll(sheep, '0', '16')).toString('latin1'), 'abc\0\0\0\0\0\0\0de\0\0\0\0')
})

test('what does not fit into the volume is dropped, as 1.0 does', async (t) => {
  const sheep = await formatted()
  const { status } = await runDog(sheep, ['vdi', 'write', 'w', '19M'], {
    stdin: chunks(pattern(4 * MIB), MIB),
  })
  t.is(status, 0)
  t.true((await readAll(sheep, '19M')).equals(pattern(4 * MIB).subarray(0, MIB)))
})

test('a read is clipped at the end of the volume', async (t) => {
  const sheep = await formatted()
  t.is((await readAll(sheep, '20M', '512')).length, 0)
  t.is((await readAll(sheep, '19M', '5M')).length, MIB)
})

test('an unallocated object is created and then named; an own one is only written', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', 'w', '100'], { stdin: 'x' })
  await runDog(sheep, ['vdi', 'write', 'w', '200'], { stdin: 'y' })
  const writes = sheep.requests.filter((one) => one.has(Flag.WRITE) && one.opcode < 0x10)
  t.deepEqual(
    writes.map((one) => [one.opcode, objectFields.offset(one), one.dataLength]),
    [
      [Op.CREATE_AND_WRITE_OBJ, 100, 1],
      [Op.WRITE_OBJ, 4664, 4],
      // Whether a snapshot came in between; the test below.
      [Op.WRITE_OBJ, 100, 1],
      [Op.WRITE_OBJ, 200, 1],
    ],
  )
  t.deepEqual(
    writes.map((one) => one.has(Flag.DIRECT)),
    [true, true, false, true],
  )
})

test('a snapshot between creating an object and naming it does not swallow the data', async (t) => {
  const sheep = await formatted()
  let taken = false
  sheep.answers.set(Op.WRITE_OBJ, (request, port) => {
    const isSlot = objectFields.oid(request) === inodeOid(vidHash('w'))
    if (isSlot && !taken) {
      taken = true
      sheep.snapshot('w')
    }
    return sheep.usual(request, port)
  })
  const result = await runDog(sheep, ['vdi', 'write', 'w', '100'], { stdin: 'precious' })
  t.true(taken)
  t.is(result.stderr, '')
  t.is((await readAll(sheep, '100', '8')).toString(), 'precious')
})

test('-w asks for cached writes and flushes them before it ends', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', '-w', 'w'], { stdin: 'x' })
  const create = sheep.requests.find((one) => one.opcode === Op.CREATE_AND_WRITE_OBJ)!
  t.true(create.has(Flag.CACHE))
  t.is(sheep.opcodes.at(-1), Op.FLUSH_VDI)
})

test('a refused flush means the data may not be safe: the command fails', async (t) => {
  const sheep = await formatted()
  sheep.answers.set(Op.FLUSH_VDI, () => ({ result: Code.EIO }))
  const result = await runDog(sheep, ['vdi', 'write', '-w', 'w'], { stdin: 'x' })
  t.is(result.status, 1)
  t.is(result.stderr, 'Failed to write VDI\n')
})

test('an object shared with a snapshot is copied, and the snapshot keeps its bytes', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', 'w'], { stdin: 'old-old' })
  await runDog(sheep, ['vdi', 'snapshot', 'w', '-s', 'one'])
  await runDog(sheep, ['vdi', 'write', 'w', '4'], { stdin: 'NEW' })
  t.is((await readAll(sheep, '0', '7')).toString(), 'old-NEW')
  t.is((await readAll(sheep, '0', '7', '-s', 'one')).toString(), 'old-old')
  t.is((await readAll(sheep, '0', '7', '-s', '1')).toString(), 'old-old')
})

test('a snapshot taken in the middle of a write: nothing fails, the snapshot is not changed', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', 'w'], { stdin: chunks(pattern(20 * MIB), MIB) })
  const data = pattern(20 * MIB, 77)
  async function* interrupted(): AsyncGenerator<Buffer> {
    yield data.subarray(0, 6 * MIB)
    // The first object is written by now; wait for that, then take the snapshot.
    while (!sheep.objects.has(dataOid(vidHash('w'), 0))) await new Promise(setImmediate)
    await runDog(sheep, ['vdi', 'snapshot', 'w', '-s', 'middle'])
    yield data.subarray(6 * MIB)
  }
  const result = await runDog(sheep, ['vdi', 'write', 'w'], { stdin: interrupted() })
  t.is(result.stderr, '')
  t.is(result.status, 0)
  t.true((await readAll(sheep)).equals(data))
  const snapshot = await readAll(sheep, '-s', 'middle')
  t.true(snapshot.subarray(8 * MIB).equals(pattern(20 * MIB).subarray(8 * MIB)))
})

test('a write refused for ever ends with the object and the reason', async (t) => {
  const sheep = await formatted()
  sheep.answers.set(Op.CREATE_AND_WRITE_OBJ, () => ({ result: Code.READONLY }))
  const result = await runDog(sheep, ['vdi', 'write', 'w', '4M'], { stdin: 'x' })
  const oid = `00${vidHash('w').toString(16).padStart(6, '0')}00000001`
  t.is(result.stderr, `Failed to write object ${oid}: Object is read-only\nFailed to write VDI\n`)
  t.is(result.status, 1)
})

test('a full cluster fails the write and never names the object', async (t) => {
  const sheep = await formatted()
  sheep.answers.set(Op.CREATE_AND_WRITE_OBJ, () => ({ result: Code.NO_SPACE }))
  const result = await runDog(sheep, ['vdi', 'write', 'w'], { stdin: 'x' })
  t.regex(result.stderr, /: Server has no space for new objects\nFailed to write VDI\n$/)
  t.is(sheep.slot(vidHash('w'), 0), 0)
})

test('an object replaced while it is read is found through its slot', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', 'w'], { stdin: 'gone' })
  // Between reading the slots and the object, the running volume discards it.
  const vid = vidHash('w')
  sheep.answers.set(Op.READ_OBJ, (request) => {
    const oid = objectFields.oid(request)
    if (oid === dataOid(vid, 0)) {
      sheep.objects.get(inodeOid(vid))?.write(4664, Buffer.alloc(4))
      return { result: Code.NO_OBJ }
    }
    return { body: sheep.objects.get(oid)!.read(objectFields.offset(request), request.dataLength) }
  })
  const result = await runDog(sheep, ['vdi', 'read', 'w', '0', '4'])
  t.is(result.status, 0)
  t.is(result.stdout, '\0\0\0\0')
})

test('a lost object is an error, not zeros', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', 'w'], { stdin: 'x' })
  sheep.objects.delete(dataOid(vidHash('w'), 0))
  const result = await runDog(sheep, ['vdi', 'read', 'w'])
  t.is(result.status, 1)
  t.regex(
    result.stderr,
    /^Failed to read object 00[0-9a-f]{14} No object found\nFailed to read VDI\n$/,
  )
})

test('stdout that cannot be written ends the read with status 2', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', 'w'], { stdin: chunks(pattern(20 * MIB), MIB) })
  const result = await runDog(sheep, ['vdi', 'read', 'w'], { stdoutError: 'ENOSPC' })
  t.is(result.status, 2)
  t.is(result.stderr, 'Failed to write to stdout: No space left on device\n')
})

test('a reader that went away ends the read quietly', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', 'w'], { stdin: chunks(pattern(20 * MIB), MIB) })
  const result = await runDog(sheep, ['vdi', 'read', 'w'], { stdoutError: 'EPIPE' })
  t.is(result.status, 141)
  t.is(result.stderr, '')
})

test('an input that breaks off fails, whatever was written before', async (t) => {
  const sheep = await formatted()
  async function* broken(): AsyncGenerator<Buffer> {
    yield Buffer.from('abc')
    throw Object.assign(new Error('broken'), { code: 'EIO' })
  }
  const result = await runDog(sheep, ['vdi', 'write', 'w'], { stdin: broken() })
  t.is(result.status, 2)
  t.is(result.stderr, 'Failed to read from stdin: Input/output error\n')
})

test('a sheep that dies in the middle is told once', async (t) => {
  const sheep = await formatted()
  sheep.answers.set(Op.CREATE_AND_WRITE_OBJ, () => undefined)
  const result = await runDog(sheep, ['vdi', 'write', 'w'], {
    stdin: chunks(pattern(16 * MIB), MIB),
  })
  t.is(result.status, 1)
  t.is(result.stderr.match(/failed to read a response/g)?.length, 1)
})

test('large objects are written in pieces that stay in order', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'create', '-z', '24', 'big', '32M'])
  const data = pattern(20 * MIB + 7)
  await runDog(sheep, ['vdi', 'write', 'big', '1M'], { stdin: chunks(data, 3 * MIB) })
  const { bytes } = await runDog(sheep, ['vdi', 'read', 'big', '1M', `${data.length}`])
  t.true(bytes.equals(data))
  const creates = sheep.requests.filter((one) => one.opcode === Op.CREATE_AND_WRITE_OBJ)
  t.is(creates.length, 2)
})

test('clone -n copies data and shares nothing; -P shares nothing and allocates all', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'write', 'w', '8M'], { stdin: 'data' })
  await runDog(sheep, ['vdi', 'snapshot', 'w', '-s', 's'])
  await runDog(sheep, ['vdi', 'clone', '-n', '-s', 's', 'w', 'copy'])
  await runDog(sheep, ['vdi', 'clone', '-P', '-s', 's', 'w', 'full'])
  const slots = (name: string): number[] =>
    [0, 1, 2, 3, 4].map((index) => sheep.slot(vidHash(name), index))
  const [copy, full] = [vidHash('copy'), vidHash('full')]
  t.deepEqual(slots('copy'), [0, 0, copy, 0, 0])
  t.is(sheep.header(copy).parent, asVid(0))
  t.deepEqual(slots('full'), [full, full, full, full, full])
  for (const name of ['copy', 'full']) {
    t.is((await runDog(sheep, ['vdi', 'read', name, '8M', '4'])).stdout, 'data')
  }
})

test('delete -B gives the slots up in runs and waits in between; -m leaves the volume', async (t) => {
  const sheep = await formatted()
  const vid = vidHash('w')
  await runDog(sheep, ['vdi', 'write', 'w'], { stdin: chunks(pattern(20 * MIB), MIB) })
  await runDog(sheep, ['vdi', 'delete', 'w', '-m', '2'])
  t.deepEqual(
    [0, 1, 2].map((index) => sheep.slot(vid, index)),
    [0, 0, vid],
  )
  t.false(sheep.opcodes.includes(Op.DEL_VDI))
  sheep.requests.length = 0
  const waits: number[] = []
  await runDog(sheep, ['vdi', 'delete', 'w', '-B', '2', '-I', '3'], { waits })
  const runs = sheep.requests.filter((one) => one.opcode === Op.WRITE_OBJ)
  t.deepEqual(
    runs.map((one) => [objectFields.offset(one), one.dataLength]),
    [
      [4664 + 8, 8],
      [4664 + 16, 4],
    ],
  )
  t.deepEqual(waits, [3000])
  t.is(sheep.opcodes.at(-1), Op.DEL_VDI)
})

test('a plain delete is one request: the sheep empties what it deletes', async (t) => {
  const sheep = await formatted()
  await runDog(sheep, ['vdi', 'delete', 'w'])
  t.deepEqual(sheep.opcodes, [Op.DEL_VDI])
  t.is(sheep.requests[0]?.dataLength, 512)
})

test('a refused snapshot takes its tag back', async (t) => {
  const sheep = await formatted()
  sheep.answers.set(Op.NEW_VDI, () => ({ result: Code.FULL_VDI }))
  const result = await runDog(sheep, ['vdi', 'snapshot', 'w', '-s', 'tag'])
  t.is(result.status, 1)
  t.is(result.stderr, 'Failed to create VDI w: Maximum number of VDIs reached\n')
  t.is(sheep.header(vidHash('w')).tag, '')
})
