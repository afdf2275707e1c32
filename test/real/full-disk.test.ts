/**
 * Nodes whose disks are really full (small tmpfs): writers hear NO_SPACE, everything written stays readable and
 * writable, nobody dies of it, and with space the writes go on.
 */
import { randomFillSync } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import test, { type ExecutionContext } from 'ava'
import { NbdClient, NbdRefused } from '../faults/nbd-client.js'
import { startCluster, type TestCluster } from './support/cluster.js'
import { scratch } from './support/owner.js'
import { run, until } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
const ENOSPC = 28
const DISK_MIB = 64
const OBJECT_BYTES = 4 * MIB
const ALICE_BYTES = 16 * MIB
/** Two copies of each are far more than three disks hold. */
const FILLER_OBJECTS = 48
const OPEN_MS = 10_000
const SPACE_BACK_MS = 60_000

const isRoot = process.getuid?.() === 0
const rootTest = isRoot
  ? needing('mount')
  : (title: string) => test.serial.skip(`${title} (needs root)`, () => undefined)

async function smallDisk(t: ExecutionContext, index: number): Promise<string> {
  const path = `${await scratch(t)}/small${index}`
  await mkdir(path)
  await run(['mount', '-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'tmpfs', path])
  t.teardown(async () => void (await run(['umount', '-l', path])))
  return path
}

/** Whoever had the disk open before may still be giving its lock back. */
async function open(cluster: TestCluster, name: string, index = 0): Promise<NbdClient> {
  const { host, place } = cluster.node(index)
  let client: NbdClient | undefined
  await until(`node ${index} opening ${name}`, OPEN_MS, async () => {
    client = await NbdClient.open({ host, port: place.nbdPort }, name)
    return true
  })
  return client!
}

/** Errno of the refusal; 0 when the write was done. */
async function tryWrite(client: NbdClient, offset: number, data: Buffer): Promise<number> {
  try {
    await client.write(offset, data, false)
    return 0
  } catch (error) {
    if (error instanceof NbdRefused) return error.errno
    throw error
  }
}

rootTest(
  'a full disk refuses writers, serves readers, and goes on when there is space',
  async (t) => {
    t.timeout(180_000)
    const disks = [await smallDisk(t, 0), await smallDisk(t, 1), await smallDisk(t, 2)]
    const place = (index: number) => ({ disks: [disks[index]!] })
    const cluster = await startCluster(t, { copies: 2, place })
    await cluster.dog('vdi create', 'Alice', `${2 * ALICE_BYTES}`)
    await cluster.dog('vdi create', 'Filler', `${FILLER_OBJECTS * OBJECT_BYTES}`)
    let alice = await open(cluster, 'Alice')
    const kept = randomFillSync(Buffer.alloc(ALICE_BYTES))
    await alice.write(0, kept, true)

    const filler = await open(cluster, 'Filler')
    const written = new Map<number, Buffer>()
    let refused = 0
    for (let object = 0; object < FILLER_OBJECTS; object++) {
      const data = randomFillSync(Buffer.alloc(OBJECT_BYTES))
      const errno = await tryWrite(filler, object * OBJECT_BYTES, data)
      if (errno === 0) written.set(object, data)
      else {
        t.is(errno, ENOSPC)
        refused++
      }
    }
    t.true(refused > 0, `${refused} of ${FILLER_OBJECTS} refused`)
    t.true(written.size > 0)

    t.false(cluster.nodes.some((node) => node.ended()))
    await cluster.members(3)
    alice.close()
    for (const index of [2, 1, 0]) {
      alice = await open(cluster, 'Alice', index)
      t.true(kept.equals(await alice.read(0, ALICE_BYTES)), `Alice through node ${index}`)
      if (index > 0) alice.close()
    }
    for (const [object, data] of written) {
      const found = await filler.read(object * OBJECT_BYTES, OBJECT_BYTES)
      t.true(data.equals(found), `object ${object} of Filler`)
    }
    // What has its space already can be written.
    randomFillSync(kept)
    await alice.write(0, kept, true)
    await filler.flush()
    filler.close()

    await cluster.dog('vdi delete', 'Filler')
    const more = randomFillSync(Buffer.alloc(ALICE_BYTES))
    await until('space for writers', SPACE_BACK_MS, async () => {
      return (await tryWrite(alice, ALICE_BYTES, more)) === 0
    })
    await alice.flush()
    t.true(kept.equals(await alice.read(0, ALICE_BYTES)))
    t.true(more.equals(await alice.read(ALICE_BYTES, ALICE_BYTES)))
    alice.close()
  },
)
