// The record of objects with writes in flight: what is in it after a power cut, a torn slot, a failing disk.
import test from 'ava'
import { Code } from '../../src/base/codes.js'
import { silentLog } from '../../src/base/log.js'
import { asVid, dataOid, type Oid } from '../../src/model/oid.js'
import { type InFlightLog, openInFlightLog } from '../../src/store/in-flight-log.js'
import { FakeFiles } from './support/fake-files.js'

const META = '/meta'

function disk(): FakeFiles {
  const files = new FakeFiles()
  files.mkdir(META)
  return files
}

function open(files: FakeFiles, slots = 4): Promise<InFlightLog> {
  return openInFlightLog({ files, log: silentLog, metaDirectory: META, durable: true, slots })
}

function oid(index: number): Oid {
  return dataOid(asVid(7), index)
}

function add(log: InFlightLog, index: number): Promise<Code> {
  return new Promise((resolve) => log.add(oid(index), resolve))
}

async function foundAfterPowerCut(files: FakeFiles): Promise<number[]> {
  files.crash()
  const log = await open(files)
  log.close()
  return log.found.map((found) => Number(found & 0xffn)).sort()
}

test('what was recorded is found after a power cut, what was removed and tidied is not', async (t) => {
  const files = disk()
  const log = await open(files)
  t.deepEqual(log.found, [])
  t.deepEqual(await Promise.all([add(log, 1), add(log, 2), add(log, 3)]), [0, 0, 0])
  log.remove(oid(2))
  t.is(await add(log, 4), Code.SUCCESS)
  t.deepEqual(await foundAfterPowerCut(files), [1, 3, 4])
})

test('objects recorded at the same time share a sync', async (t) => {
  const files = disk()
  const log = await open(files, 64)
  const before = files.count('sync')
  await Promise.all(Array.from({ length: 40 }, (_, i) => add(log, i + 1)))
  t.true(files.count('sync') - before <= 2)
})

test('with every slot taken an object waits for one to become free', async (t) => {
  const files = disk()
  const log = await open(files)
  await Promise.all([1, 2, 3, 4].map((index) => add(log, index)))
  let code: Code | undefined
  log.add(oid(5), (ended) => {
    code = ended
  })
  await new Promise(setImmediate)
  t.is(code, undefined)
  t.true(log.isTight)
  log.remove(oid(3))
  await new Promise(setImmediate)
  t.is(code, Code.SUCCESS)
  t.deepEqual(await foundAfterPowerCut(files), [1, 2, 4, 5])
})

test('a slot that is not whole is free', async (t) => {
  const files = disk()
  const log = await open(files)
  await add(log, 1)
  await add(log, 2)
  log.close()
  const file = files.open(`${META}/in-flight`, { write: true })
  const slots = Buffer.alloc(64)
  file.readNow(slots, 0)
  const at = slots.findIndex((byte) => byte !== 0)
  file.writeNow(Buffer.of(slots[at]! ^ 1), at)
  file.close()
  const again = await open(files)
  t.is(again.found.length, 1)
  for (const index of [5, 6, 7]) t.is(await add(again, index), Code.SUCCESS)
})

test('an object whose record cannot be made durable is refused, and recorded the next time', async (t) => {
  const files = disk()
  const log = await open(files)
  files.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined)
  t.is(await add(log, 1), Code.EIO)
  files.fault = () => undefined
  t.is(await add(log, 1), Code.SUCCESS)
  t.deepEqual(await foundAfterPowerCut(files), [1])
})

test('a cleared record is empty after a power cut; a closed one takes nothing', async (t) => {
  const files = disk()
  const log = await open(files)
  await add(log, 1)
  await log.clear()
  log.close()
  t.is(await add(log, 2), Code.SHUTDOWN)
  t.deepEqual(await foundAfterPowerCut(files), [])
})
