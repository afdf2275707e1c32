// What the iSCSI door receives and answers lies in memory that is used again: when, and when not.
import test from 'ava'
import type { BufferPool } from '../../src/base/buffer-pool.js'
import { Code } from '../../src/base/codes.js'
import { Answer, TaskFunction } from '../../src/wire/iscsi/constants.js'
import { iscsiRig, outcomeOf, read10, settle, write10 } from './support/iscsi-rig.js'

const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0]
const KIB = 1024
const BLOCK = 512

async function ready() {
  const rig = await iscsiRig()
  const one = rig.connect()
  await one.login()
  await one.outcome({ cdb: TEST_UNIT_READY })
  return { ...rig, one }
}

/** Every buffer taken from now on, by its length. */
function watch(pool: BufferPool): number[] {
  const taken: number[] = []
  const take = pool.take.bind(pool)
  pool.take = (length) => {
    taken.push(length)
    return take(length)
  }
  return taken
}

test('reads that fail or are aborted leave no memory behind', async (t) => {
  const { one, volume, pool } = await ready()
  // The smaller ones lie side by side with others, the larger ones alone.
  for (const blocks of [32, 512]) {
    const read = { cdb: read10(0, blocks), read: blocks * BLOCK }
    volume.tap = (_verb, go) => go()
    await one.ask(read)
    const before = pool.idleBytes
    const taken = watch(pool)
    volume.tap = (_verb, _go, done) => done(Code.EIO)
    for (let i = 0; i < 20; i++) t.is(await one.outcome(read), 'check 3/1100')
    let go: () => void = () => undefined
    volume.tap = (_verb, run) => {
      go = run
    }
    for (let i = 0; i < 20; i++) {
      const tag = one.tag
      await one.raw(one.commandPdu(read))
      const aborted = one.manage(TaskFunction.ABORT_TASK, tag)
      go()
      await aborted
    }
    t.is(pool.idleBytes, before)
    t.is(taken.length, blocks === 32 ? 0 : 40)
  }
})

test('the data of a large write is gathered in one piece of memory, which the next one uses again', async (t) => {
  const { one, volume, pool } = await ready()
  const written: Buffer[] = []
  const write = volume.write.bind(volume)
  volume.write = (offset, data, fua, done) => {
    written.push(Buffer.from(data))
    write(offset, data, fua, done)
  }
  const before = pool.idleBytes
  for (const fill of [1, 2]) {
    const data = Buffer.alloc(1024 * KIB, fill)
    for (let i = 0; i < data.length; i += BLOCK) data.writeUInt32BE(i, i)
    const immediate = data.subarray(0, 64 * KIB)
    const tag = one.tag
    const taken = watch(pool)
    await one.raw(one.commandPdu({ cdb: write10(0, 2048), write: data.length, immediate }), 9999)
    let [answer] = one.answers()
    while (answer?.opcode === Answer.R2T) {
      const { header } = answer
      const [ttt, at, bytes] = [20, 40, 44].map((field) => header.readUInt32BE(field))
      const part = data.subarray(at!, at! + bytes!)
      await one.raw(one.dataOut(tag, { ttt: ttt!, at: at!, data: part }), 70_000)
      answer = one.answers()[0]
    }
    t.is(outcomeOf(answer!), 'good')
    t.true(written.pop()!.equals(data))
    t.deepEqual(
      taken.filter((length) => length >= 64 * KIB),
      [1024 * KIB],
    )
    t.is(pool.idleBytes - before, 1024 * KIB)
  }
})

test('what still comes for a command that was aborted meanwhile is written over nobody else', async (t) => {
  const { one, connect } = await ready()
  const two = connect()
  await two.login({}, '400000000002')
  await two.outcome({ cdb: TEST_UNIT_READY })
  const data = Buffer.alloc(64 * KIB, 1)
  const tag = one.tag
  await one.raw(one.commandPdu({ cdb: write10(0, 128), write: data.length, isOpen: true }))
  const part = one.dataOut(tag, { at: 0, data })
  await one.raw(part.subarray(0, 1000))
  await two.manage(TaskFunction.LUN_RESET)
  // As large as what was being received, so that it would get the same memory.
  const theirs = Buffer.alloc(64 * KIB, 2)
  const other = two.tag
  await two.outcome({ cdb: TEST_UNIT_READY })
  await two.raw(two.commandPdu({ cdb: write10(0, 128), write: theirs.length, isOpen: true }))
  const all = two.dataOut(other + 1, { at: 0, data: theirs })
  await two.raw(all.subarray(0, all.length - 1))
  await one.raw(part.subarray(1000))
  await two.raw(all.subarray(all.length - 1))
  await settle()
  t.deepEqual(two.answers().map(outcomeOf), ['good'])
  const [answer] = await two.ask({ cdb: read10(0, 128), read: theirs.length })
  t.true(answer!.data.equals(theirs))
})
