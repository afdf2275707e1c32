// `dog vdi setattr` and `getattr`: 1.0's transcript, and values at their limits.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { vidHash } from '../../src/model/hash.js'
import { attributeOid } from '../../src/model/oid.js'
import { AttributeFlag, decodeAttribute } from '../../src/wire/sheepdog/attribute.js'
import { Op } from '../../src/wire/sheepdog/opcodes.js'
import { setVdiReply } from '../../src/wire/sheepdog/replies.js'
import { asTranscript, readGolden, runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'
import { SparseBytes } from './support/sparse-bytes.js'

const node = { host: '127.0.0.1', port: 7020, vnodes: 128, zone: 1, spaceBytes: 1 }

/** A sheep that keeps attributes; each key has a number of its own. */
async function sheepWithAttributes(): Promise<FakeSheep> {
  const sheep = new FakeSheep([node])
  sheep.nowMs = 1_795_253_998_000
  await runDog(sheep, ['cluster', 'format', '-c', '1'])
  const numbers = new Map<string, number>()
  sheep.answers.set(Op.GET_VDI_ATTR, (request) => {
    const { name, key } = decodeAttribute(request.body)
    const vid = vidHash(name)
    if (!sheep.vids.has(vid)) return { result: Code.NO_VDI }
    const id = numbers.get(key) ?? numbers.size
    numbers.set(key, id)
    const oid = attributeOid(vid, id)
    const isThere = sheep.objects.has(oid)
    if (request.has(AttributeFlag.CREATE)) {
      if (isThere && request.has(AttributeFlag.EXCLUSIVE)) return { result: Code.VDI_EXIST }
      const object = new SparseBytes()
      object.write(0, request.body)
      sheep.objects.set(oid, object)
    } else if (!isThere) return { result: Code.NO_OBJ }
    if (request.has(AttributeFlag.DELETE)) sheep.objects.delete(oid)
    return { union: (head) => void setVdiReply(head, { vid, attributeId: id }) }
  })
  return sheep
}

async function set(value: string | Buffer): Promise<{ sheep: FakeSheep; stderr: string }> {
  const sheep = await sheepWithAttributes()
  await runDog(sheep, ['vdi', 'create', 'img', '4M'])
  const { stderr } = await runDog(sheep, ['vdi', 'setattr', 'img', 'key'], { stdin: value })
  return { sheep, stderr }
}

const get = async (sheep: FakeSheep): Promise<Buffer> =>
  (await runDog(sheep, ['vdi', 'getattr', 'img', 'key'])).bytes

test('every command of the transcript answers as 1.0 did', async (t) => {
  const sheep = await sheepWithAttributes()
  for (const { argv, stdin, line, answer } of readGolden('attr')) {
    const result = await runDog(sheep, argv, stdin === undefined ? {} : { stdin })
    t.is(asTranscript(result), answer.join('\n').trimEnd(), `attr.txt:${line}`)
  }
})

test('a value of 65536 bytes is kept whole; one byte more is refused, and nothing is set', async (t) => {
  const largest = await set(Buffer.alloc(65536, 'b'))
  t.true((await get(largest.sheep)).equals(Buffer.alloc(65536, 'b')))
  const tooLarge = await set(Buffer.alloc(65537, 'b'))
  t.is(tooLarge.stderr, 'The value is longer than 65536 bytes\n')
  t.false(tooLarge.sheep.opcodes.includes(Op.GET_VDI_ATTR))
})

test('a value ends at its first NUL, and bytes that are no text come back as they are', async (t) => {
  t.is((await get((await set('a\0b')).sheep)).toString(), 'a')
  const bytes = Buffer.from('80ff0a22fe', 'hex')
  t.true((await get((await set(bytes)).sheep)).equals(bytes))
})

test('a key that does not fit is refused, not cut', async (t) => {
  const sheep = await sheepWithAttributes()
  await runDog(sheep, ['vdi', 'create', 'img', '4M'])
  const long = await runDog(sheep, ['vdi', 'setattr', 'img', 'k'.repeat(256), 'v'])
  t.is(long.status, 1)
  t.is(long.stderr, 'The attribute key is longer than 255 bytes\n')
  t.is((await runDog(sheep, ['vdi', 'setattr', 'img', 'k'.repeat(255), 'v'])).status, 0)
})

test('other refusals are told in words', async (t) => {
  const sheep = await sheepWithAttributes()
  sheep.answers.set(Op.GET_VDI_ATTR, () => ({ result: Code.FULL_VDI }))
  const { status, stderr } = await runDog(sheep, ['vdi', 'setattr', 'img', 'key', 'v'])
  t.is(status, 1)
  t.regex(stderr, /^Failed to set attribute 'key': /)
})
