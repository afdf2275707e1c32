// Locks between QEMU 5.2 on the sheepdog protocol, NBD and iSCSI, over real daemons (README, "Locking").
import type { ExecutionContext } from 'ava'
import type { TestCluster } from './support/cluster.js'
import { startLockingCluster } from './support/locking.js'
import { freePort } from './support/ports.js'
import { start, tryRun, until } from './support/run.js'
import { img, io, OpenVolume, tryImg, vdiName } from './support/sheepdog-clients.js'
import { needingQemu52 } from './support/suite.js'

const test = needingQemu52('qemu-img', 'qemu-io')
const ISCSI_DRIVER = '/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so'
const iscsiTest = needingQemu52('qemu-img', 'qemu-io', 'iscsi-inq', ISCSI_DRIVER)

const LOCKED_BY_CLIENT =
  /Alice is locked by 127\.0\.0\.1:\d+ \(a client\).*dog vdi lock unlock Alice/
const WROTE = /wrote 65536\/65536/

async function cluster(t: ExecutionContext): Promise<TestCluster> {
  const started = await startLockingCluster(t)
  await started.dog('vdi create', 'Alice', '64M')
  return started
}

/** What the NBD door of node `index` says to whoever opens the disk; empty when it lets him in. */
async function refusal(sheep: TestCluster, index: number): Promise<string> {
  const { code, stderr } = await tryRun(['qemu-img', 'info', sheep.uri('Alice', index)])
  return code === 0 ? '' : stderr
}

async function holders(sheep: TestCluster, index = 2): Promise<string[]> {
  const { stdout } = await sheep.dogAt(index, 'vdi lock list', ['--json'])
  const { locks } = JSON.parse(stdout) as { locks: { type: string; holders: { port: number }[] }[] }
  return locks.flatMap(({ type, holders: all }) => all.map(({ port }) => `${type} ${port}`))
}

test('QEMU, NBD and QEMU on another node exclude each other, and are told by whom', async (t) => {
  const sheep = await cluster(t)
  const qemu = await OpenVolume.open(vdiName(sheep, 'Alice', 0))
  await qemu.tell('write -P 1 0 64k', WROTE)
  t.regex((await tryImg('info', vdiName(sheep, 'Alice', 1))).stderr, /locked/)
  t.regex(await refusal(sheep, 2), LOCKED_BY_CLIENT)
  t.deepEqual(await holders(sheep), [`client ${sheep.node(0).port}`])
  await t.throwsAsync(sheep.dogAt(1, 'vdi delete', ['Alice']), { message: /VDI is already locked/ })
  await qemu.close()
  t.deepEqual(await holders(sheep), [])
  const hold = ['qemu-io', '-f', 'raw', '-r', '-c', 'read -P 1 0 64k', '-c', 'sleep 600000']
  const nbd = start([...hold, sheep.uri('Alice', 1)])
  t.teardown(async () => nbd.kill('SIGKILL'))
  await until('the lock of the NBD client', 30_000, async () => {
    return (await holders(sheep)).includes(`door ${sheep.node(1).port}`)
  })
  t.regex((await tryImg('info', vdiName(sheep, 'Alice', 0))).stderr, /locked/)
  nbd.kill('SIGKILL')
  await until('the end of its lock', 30_000, async () => (await holders(sheep)).length === 0)
  t.is((await tryImg('info', vdiName(sheep, 'Alice', 0))).code, 0)
})

iscsiTest(
  'iSCSI is one of them: who has the disk there keeps it from all others, and the other way round',
  async (t) => {
    const port = await freePort()
    const options = ['--iscsi', `127.0.0.1:${port}`]
    const place = (index: number) => (index === 1 ? { options } : {})
    const sheep = await startLockingCluster(t, { place })
    await sheep.dog('vdi create', 'Alice', '64M')
    const disk = `iscsi://127.0.0.1:${port}/iqn.2026-11.io.sheepdog:Alice/0`
    const held = async (holder: string): Promise<void> => {
      await until(`the lock of ${holder}`, 30_000, async () => `${await holders(sheep)}` === holder)
    }
    const hold = (url: string) => {
      const words = ['-c', 'write -P 1 0 64k', '-c', 'flush', '-c', 'sleep 600000']
      const client = start(['qemu-io', '-f', 'raw', ...words, url])
      t.teardown(async () => client.kill('SIGKILL'))
      return client
    }
    const isRefused = async (who: 'iscsi-inq' | 'qemu-img'): Promise<void> => {
      const words = who === 'iscsi-inq' ? [who, disk] : [who, 'info', disk]
      const { code, stderr } = await tryRun(words, { timeoutMs: 30_000 })
      t.not(code, 0, who)
      t.regex(stderr, /log ?in/i)
    }

    const session = hold(disk)
    await held(`door ${sheep.node(1).port}`)
    t.regex((await tryImg('info', vdiName(sheep, 'Alice', 0))).stderr, /locked/)
    t.regex((await tryImg('info', vdiName(sheep, 'Alice', 1))).stderr, /locked/)
    t.regex(await refusal(sheep, 2), /Alice is locked by/)
    await t.throwsAsync(sheep.dogAt(0, 'vdi delete', ['Alice']), {
      message: /VDI is already locked/,
    })
    session.kill('SIGKILL')
    await held('')

    const qemu = await OpenVolume.open(vdiName(sheep, 'Alice', 0))
    await qemu.tell('read -P 1 0 64k', /read 65536\/65536/)
    await isRefused('iscsi-inq')
    await isRefused('qemu-img')
    await qemu.close()
    const nbd = hold(sheep.uri('Alice', 2))
    await held(`door ${sheep.node(2).port}`)
    await isRefused('iscsi-inq')
    nbd.kill('SIGKILL')
    await held('')

    hold(disk)
    await held(`door ${sheep.node(1).port}`)
    await sheep.node(1).kill()
    await held('')
    t.is((await tryImg('info', vdiName(sheep, 'Alice', 0))).code, 0)
    t.is(await refusal(sheep, 2), '')
  },
)

test('a QEMU that was killed leaves its lock until it is taken away', async (t) => {
  const sheep = await cluster(t)
  const qemu = await OpenVolume.open(vdiName(sheep, 'Alice', 0))
  await qemu.kill()
  t.regex(await refusal(sheep, 1), LOCKED_BY_CLIENT)
  await sheep.dogAt(2, 'vdi lock unlock', ['Alice'])
  t.is(await refusal(sheep, 1), '')
})

test('a QEMU whose sheep was killed and came back goes on, and has its lock again', async (t) => {
  const sheep = await cluster(t)
  const qemu = await OpenVolume.open(vdiName(sheep, 'Alice', 0))
  t.teardown(() => qemu.kill())
  await qemu.tell('write -P 1 0 64k', WROTE)
  await sheep.node(0).kill()
  await until('the departure', 30_000, async () => (await holders(sheep)).length === 0)
  await sheep.node(0).start()
  await qemu.tell('write -P 2 0 64k', WROTE)
  t.regex(await refusal(sheep, 1), LOCKED_BY_CLIENT)
  await qemu.close()
  t.is(await refusal(sheep, 1), '')
})

test('a QEMU whose sheep was killed does not write over who has had the disk since', async (t) => {
  const sheep = await cluster(t)
  const qemu = await OpenVolume.open(vdiName(sheep, 'Alice', 0))
  t.teardown(() => qemu.kill())
  await qemu.tell('write -P 1 0 64k', WROTE)
  await sheep.node(0).kill()
  const write = ['qemu-io', '-f', 'raw', '-c', 'write -P 3 0 64k', sheep.uri('Alice', 1)]
  await until('NBD to get the disk', 60_000, async () => (await tryRun(write)).code === 0)
  await sheep.node(0).start()
  await qemu.tell('write -P 2 0 64k', /write failed/)
  const read = ['qemu-io', '-f', 'raw', '-r', '-c', 'read -P 3 0 64k', sheep.uri('Alice', 2)]
  const { code, stdout } = await tryRun(read)
  t.is(code, 0)
  t.notRegex(stdout, /Pattern verification failed/)
})

test("qemu-img's snapshots work on a locked cluster and leave no lock behind", async (t) => {
  const sheep = await cluster(t)
  const alice = vdiName(sheep, 'Alice', 0)
  const snapshot = async (...words: string[]): Promise<void> => {
    await img('snapshot', ...words, alice)
    t.deepEqual(await holders(sheep), [], words.join(' '))
  }
  await io(alice, ['write -P 1 0 64k'])
  await snapshot('-c', 'monday')
  await io(alice, ['write -P 2 0 64k'])
  await io(`${alice}:monday`, ['read -P 1 0 64k'])
  t.deepEqual(await holders(sheep), [])
  await snapshot('-a', 'monday')
  await io(alice, ['read -P 1 0 64k'])
  await snapshot('-d', 'monday')
  t.is(await refusal(sheep, 1), '')
})
