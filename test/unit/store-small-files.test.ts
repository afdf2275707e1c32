/** config, epoch log, lock and names: the bytes of the objects spec, sections 12, 13 and 18. */
import test from 'ava'
import type { SdNode } from '../../src/model/node.js'
import { fragmentId, type Oid } from '../../src/model/oid.js'
import {
  decodeConfig,
  encodeConfig,
  readConfig,
  type StoreConfig,
  writeConfig,
} from '../../src/store/config.js'
import { DiskSet, virtualDiskPositions } from '../../src/store/disks.js'
import { decodeEpoch, encodeEpoch, openEpochLog } from '../../src/store/epoch-log.js'
import { lockStore } from '../../src/store/lock.js'
import {
  isTemporaryName,
  parseStaleName,
  parseWorkingName,
  workingFileName,
} from '../../src/store/names.js'
import { SharedSync } from '../../src/store/shared-sync.js'
import { FakeFiles } from './support/fake-files.js'

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(/[\s|]/g, ''), 'hex')
}

const PLAIN = '706c61696e 0000000000000000000000'
const REPLICATED = hex(
  `88 15 b2 05 b1 65 01 6b | 04 00 | 03 | ${PLAIN} | 00 | 00 | 16 | 06 00 | 00 00 e9 dd 12 00 00 00`,
)
const CODED = hex(
  `70 a4 98 02 d0 6f 01 6b | 04 00 | 03 | ${PLAIN} | 01 | 11 | 16 | 06 00 | 00 c0 71 1b 12 00 00 00`,
)
const REPLICATED_CONFIG: StoreConfig = {
  createdAt: 0x6b0165b105b21588n,
  flags: 4,
  copies: 3,
  copyPolicy: 0,
  blockSizeShift: 22,
  storeName: 'plain',
  cleanShutdown: false,
  spaceBytes: 0x12dde90000,
}

test('the config of a replicated cluster is the spec’s 40 bytes', (t) => {
  t.deepEqual(encodeConfig(REPLICATED_CONFIG), REPLICATED)
  t.deepEqual(decodeConfig(REPLICATED, 'config'), REPLICATED_CONFIG)
})

test('the config of a coded cluster that was shut down is the spec’s 40 bytes', (t) => {
  const config = decodeConfig(CODED, 'config')
  t.true(config.cleanShutdown)
  t.is(config.copyPolicy, 0x11)
  t.is(config.spaceBytes, 0x121b71c000)
  t.deepEqual(encodeConfig(config), CODED)
})

test('a config of another version is refused by its number, with a remedy', (t) => {
  for (const [version, pattern] of [
    [5, /^\/s\/config has format version 5 \(sheepdog 0\.9\).*version 6.*convert/],
    [2, /version 2 \(sheepdog 0\.6 or 0\.7\)/],
    [7, /version 7.*newer release/],
  ] as const) {
    const bytes = Buffer.from(REPLICATED)
    bytes.writeUInt16LE(version, 30)
    t.throws(() => decodeConfig(bytes, '/s/config'), { message: pattern })
    t.throws(() => decodeConfig(bytes.subarray(0, 32), '/s/config'), { message: pattern })
  }
})

test('a cut or impossible config is called damaged, by its path', (t) => {
  for (const length of [0, 31, 39]) {
    t.throws(() => decodeConfig(REPLICATED.subarray(0, length), '/s/config'), {
      message: /^\/s\/config is damaged/,
    })
  }
  const huge = Buffer.from(REPLICATED)
  huge.fill(0xff, 32)
  t.throws(() => decodeConfig(huge, '/s/config'), { message: /damaged/ })
})

test('a written config is read back, and an unused directory has none', async (t) => {
  const files = new FakeFiles()
  files.mkdir('/s')
  t.is(readConfig(files, '/s'), undefined)
  await writeConfig(files, '/s', REPLICATED_CONFIG)
  files.crash()
  t.deepEqual(readConfig(files, '/s'), REPLICATED_CONFIG)
})

test('a config that cannot be read is an error, not an unused directory', (t) => {
  const files = new FakeFiles()
  files.mkdir('/s')
  files.fault = () => 'EIO'
  t.throws(() => readConfig(files, '/s'), { code: 'EIO' })
})

const NODE: SdNode = {
  host: '127.0.0.1',
  port: 7390,
  vnodes: 128,
  zone: 0,
  spaceBytes: 0x121b71c000,
}
const EPOCH_FILE = hex(
  `${'00'.repeat(24)} ${'00'.repeat(12)} 7f000001 de1c ${'00'.repeat(22)}
   8000000000000000 00c0711b12000000 d06f016b00000000`,
)
const EPOCH = { nodes: [NODE], time: 0x6b016fd0 }

test('the epoch file of one node is the spec’s 88 bytes', (t) => {
  t.deepEqual(encodeEpoch(EPOCH), EPOCH_FILE)
  t.deepEqual(decodeEpoch(EPOCH_FILE), EPOCH)
})

test('an epoch file is sorted by address and port', (t) => {
  const nodes = [
    { ...NODE, host: '10.0.0.2' },
    { ...NODE, port: 7000 },
    { ...NODE, host: '10.0.0.1' },
  ]
  const hosts = decodeEpoch(encodeEpoch({ nodes, time: 1 })).nodes.map((node) => node.host)
  t.deepEqual(hosts, ['10.0.0.1', '10.0.0.2', '127.0.0.1'])
})

test('bytes that are no epoch file are refused', (t) => {
  for (const length of [0, 7, 9, 87, 89]) {
    t.throws(() => decodeEpoch(Buffer.alloc(length)), { instanceOf: RangeError })
  }
  t.throws(() => decodeEpoch(Buffer.alloc(7000 * 80 + 8)), { instanceOf: RangeError })
})

test('the epoch log knows what it holds, before and after a power cut', async (t) => {
  const files = new FakeFiles()
  const log = await openEpochLog(files, '/s')
  t.is(log.latest(), 0)
  for (const epoch of [1, 2, 3, 10]) await log.write(epoch, EPOCH)
  await log.remove([2, 7])
  t.deepEqual(log.list(), [1, 3, 10])
  files.open('/s/epoch/00000011.tmp', { write: true, create: true }).close()
  files.open('/s/epoch/123', { write: true, create: true }).close()
  await files.syncDir('/s/epoch')
  files.crash()
  const again = await openEpochLog(files, '/s')
  t.deepEqual(again.list(), [1, 3, 10])
  t.is(again.latest(), 10)
  t.deepEqual(again.read(10), EPOCH)
  t.is(again.read(2), undefined)
})

test('a damaged epoch file is named', async (t) => {
  const files = new FakeFiles()
  files.mkdir('/s/epoch')
  await files.writeFileAtomic('/s/epoch/00000004', Buffer.alloc(81))
  const log = await openEpochLog(files, '/s')
  t.throws(() => log.read(4), { message: /^\/s\/epoch\/00000004 is damaged/ })
})

test('a directory belongs to one daemon', (t) => {
  const files = new FakeFiles()
  const lock = lockStore(files, '/s')
  t.throws(() => lockStore(files, '/s'), { message: /^\/s is in use by another sheep/ })
  lock.release()
  lockStore(files, '/s')
  t.true(files.exists('/s/lock'))
})

test('virtual disks are where the spec has them', (t) => {
  const positions = (path: string, mib: number): string[] =>
    virtualDiskPositions(path, mib * 1024 * 1024).map((position) => position.toString(16))
  t.deepEqual(positions('/var/lib/sheepdog/obj', 40), [
    'c49c32d9d5c0edc1',
    '85158bacb2286443',
    'b10aa6b9ebdd450d',
  ])
  t.deepEqual(positions('/disk1', 33), ['38041142c808ada8', '1e834d8002fbd9be', '47903e927adfc9c'])
})

test('a disk is chosen by the next virtual disk on the ring, wrapping', (t) => {
  const mib = 1024 * 1024
  const disk = (index: number, path: string, weightBytes: number) => ({
    index,
    path,
    stalePath: `${path}/.stale`,
    weightBytes,
    usedBytes: 0,
    id: path,
    gone: false,
    names: new SharedSync((done) => done(null)),
    staleNames: new SharedSync((done) => done(null)),
  })
  const disks = new DiskSet([
    disk(0, '/var/lib/sheepdog/obj', 40 * mib),
    disk(1, '/disk1', 33 * mib),
  ])
  // Positions: 0479.. 1e83.. 3804.. (disk 1), 8515.. b10a.. c49c.. (disk 0); hashes: spec 11.4.
  const chosen = (oid: bigint): number => disks.choose(oid as Oid).index
  t.is(chosen(0x40a0390700000000n), 0) // 62ad.. -> 8515..
  t.is(chosen(0x80a0390700000000n), 0) // c2b5.. -> c49c..
  t.is(chosen(0n), 1) // cb72.. wraps -> 0479..
  t.is(chosen(0x80ffffff00000000n), 1) // 1608.. -> 1e83..
  t.is(disks.spaceBytes, 73 * mib)
})

test('names that are no object are told from names that are', (t) => {
  t.deepEqual(parseWorkingName('00a0390700000005'), 0xa0390700000005n as Oid)
  const coded = 0x39b88300000000n as Oid
  t.deepEqual(parseWorkingName('0039b88300000000_2'), fragmentId(coded, 2))
  t.deepEqual(parseStaleName('00a0390700000005.12'), {
    id: 0xa0390700000005n as Oid,
    epoch: 12,
  })
  t.is(parseStaleName('0039b88300000000_11.3')?.id, fragmentId(coded, 11))
  t.is(workingFileName(fragmentId(coded, 11)), '0039b88300000000_11')
  for (const name of [
    '0000000000000000',
    'ffffffffffffffff',
    '.stale',
    '00A0390700000005',
    '00a039070000000',
    '00a03907000000055',
    '00a0390700000005_',
    '00a0390700000005_01',
    '00a0390700000005_31',
    '00a0390700000005.tmp',
  ]) {
    t.is(parseWorkingName(name), undefined, name)
  }
  for (const name of ['00a0390700000005', '00a0390700000005.0', '00a0390700000005.99999999999']) {
    t.is(parseStaleName(name), undefined, name)
  }
  t.true(isTemporaryName('0039b88300000000_2.tmp'))
  t.false(isTemporaryName('holiday.tmp'))
})
