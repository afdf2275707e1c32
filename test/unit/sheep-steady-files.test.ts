// The small files of a node on a disk that is full, and whole nodes whose disks are.
import test from 'ava'
import { silentLog } from '../../src/base/log.js'
import { steadyFiles } from '../../src/sheep/steady-files.js'
import { FakeFiles } from './support/fake-files.js'
import { VirtualClock } from './support/virtual-clock.js'

function steady() {
  const files = new FakeFiles()
  files.mkdir('/meta')
  const clock = new VirtualClock()
  const told: string[] = []
  const note = (event: string): void => void told.push(event)
  const log = { ...silentLog, error: note, warn: note, info: note }
  return { files, clock, told, writing: steadyFiles({ files, clock, log, metaDirectory: '/meta' }) }
}

test('a write of a small file waits for space and is done when there is some', async (t) => {
  const { files, clock, told, writing } = steady()
  files.fault = (operation) => (operation === 'writeNow' ? 'ENOSPC' : undefined)
  let done = false
  const write = writing.writeFileAtomic('/meta/epoch', Buffer.from('5')).then(() => {
    done = true
  })
  await clock.sleep(10_000)
  t.false(done)
  files.fault = () => undefined
  await clock.until('the write', () => done)
  await write
  t.is(writing.readFile('/meta/epoch').toString(), '5')
  t.deepEqual(told, ['meta.no-space', 'meta.space-back'])
})

test('the ballast goes first, and comes back with the space', async (t) => {
  const { files, clock, writing } = steady()
  await writing.writeFileAtomic('/meta/epoch', Buffer.from('5'))
  t.true(files.exists('/meta/ballast'))
  const { space } = files
  files.space = () => ({ totalBytes: 1, freeBytes: 0 })
  files.fault = (operation) =>
    operation === 'writeNow' && files.exists('/meta/ballast') ? 'ENOSPC' : undefined
  await writing.writeFileAtomic('/meta/epoch', Buffer.from('6'))
  t.false(files.exists('/meta/ballast'))
  t.is(clock.now(), new VirtualClock().now())
  files.space = space
  files.fault = () => undefined
  await writing.writeFileAtomic('/meta/epoch', Buffer.from('7'))
  t.true(files.exists('/meta/ballast'))
})

test('other errors are told at once', async (t) => {
  const { files, writing } = steady()
  files.fault = (operation) => (operation === 'writeNow' ? 'EIO' : undefined)
  await t.throwsAsync(writing.writeFileAtomic('/meta/epoch', Buffer.from('5')), { code: 'EIO' })
})
