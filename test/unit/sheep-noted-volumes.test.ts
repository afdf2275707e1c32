// The note of volumes that starts with an epoch, and what it is worth beside the disks of those that start.
import test from 'ava'
import { asVid } from '../../src/model/oid.js'
import { UNLOCKED, type VdiState } from '../../src/model/vdi-state.js'
import { exportPage, importVolumes } from '../../src/sheep/known-volumes.js'
import { noteVolumes, recallVolumes } from '../../src/sheep/noted-volumes.js'
import { VidTable } from '../../src/sheep/vid-table.js'
import { FakeFiles } from './support/fake-files.js'

const MOMENT = { ctime: 0x1234n, epoch: 7 }
const PLACE = '/sheep'

function volume(vid: number, part: Partial<VdiState> = {}): VdiState {
  const fixed = { copies: 3, policy: 0, blockSizeShift: 22, parent: asVid(0), lock: UNLOCKED }
  return { vid: asVid(vid), snapshot: false, deleted: false, ...fixed, ...part }
}

function tableOf(states: readonly VdiState[], hearsay = false): VidTable {
  const vids = new VidTable()
  for (const state of states) vids.learn(state, { hearsay })
  return vids
}

async function noted(states: readonly VdiState[]): Promise<FakeFiles> {
  const files = new FakeFiles({ later: (fn) => setImmediate(fn), totalBytes: 1 << 30 })
  files.mkdir(PLACE)
  await noteVolumes({ files, metaDirectory: PLACE, vids: tableOf(states) }, MOMENT)
  return files
}

function recalled(files: FakeFiles, moment = MOMENT): VidTable {
  const vids = new VidTable()
  recallVolumes({ files, metaDirectory: PLACE, vids }, moment)
  return vids
}

const STATES = [
  volume(1, { snapshot: true }),
  volume(0xfffffe, { parent: asVid(1), copies: 2, blockSizeShift: 31 }),
  volume(77, { deleted: true, policy: 0x12 }),
]

test('volumes are recalled as they were noted, for the epoch of the note and the one before', async (t) => {
  const files = await noted(STATES)
  for (const epoch of [6, 7]) {
    const vids = recalled(files, { ...MOMENT, epoch })
    t.deepEqual([...vids.all()], STATES)
    t.deepEqual(vids.living(), [asVid(1), asVid(0xfffffe)])
    t.true(vids.isDeleted(77))
  }
})

test('a note of another cluster, or of before an epoch in the log, says nothing', async (t) => {
  const files = await noted(STATES)
  for (const moment of [
    { ...MOMENT, ctime: 1n },
    { ...MOMENT, epoch: 8 },
  ]) {
    t.deepEqual([...recalled(files, moment).all()], [])
  }
})

test('a damaged note is an error that names it', async (t) => {
  const files = await noted(STATES)
  const whole = files.readFile(`${PLACE}/volumes`)
  const odd = Buffer.from(whole)
  odd.writeUInt32LE(0x1000000, 16)
  for (const bytes of [Buffer.alloc(0), whole.subarray(0, 40), odd]) {
    await files.writeFileAtomic(`${PLACE}/volumes`, bytes)
    t.throws(() => recalled(files), { message: /^\/sheep\/volumes is damaged/ })
  }
})

/** What one that starts makes of another's word. */
function told(own: VidTable, other: VidTable): VdiState | undefined {
  importVolumes(own, exportPage(other, 0, 1 << 20).body, false)
  return own.get(asVid(5))
}

const OLD = volume(5, { copies: 2 })
const NEW = volume(5, { copies: 3 })

test('a working inode on any disk wins over what others have noted, whoever asks', (t) => {
  t.is(told(tableOf([OLD], true), tableOf([NEW]))?.copies, 3)
  t.is(told(tableOf([NEW]), tableOf([OLD], true))?.copies, 3)
  // Its id was given out anew since.
  const gone = volume(5, { deleted: true })
  for (const [own, other] of [
    [tableOf([gone], true), tableOf([NEW])],
    [tableOf([NEW]), tableOf([gone], true)],
  ] as const) {
    t.false(told(own, other)?.deleted)
    t.false(own.isDeleted(5))
    t.true(own.isInUse(5))
  }
})

test('of two notes, and of two working inodes, the one that says deleted is right', (t) => {
  const gone = volume(5, { deleted: true })
  for (const hearsay of [false, true]) {
    for (const [own, other] of [
      [tableOf([gone], hearsay), tableOf([NEW], hearsay)],
      [tableOf([NEW], hearsay), tableOf([gone], hearsay)],
    ] as const) {
      told(own, other)
      t.true(own.isDeleted(5))
    }
  }
})

test('hearsay stays hearsay for the next one who asks', (t) => {
  const middle = new VidTable()
  told(middle, tableOf([OLD], true))
  t.is(told(tableOf([NEW]), middle)?.copies, 3)
  t.is(told(middle, tableOf([NEW]))?.copies, 3)
  t.is(told(tableOf([OLD], true), middle)?.copies, 3)
})
