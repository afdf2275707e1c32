/**
 * The kernel's own NBD client, in a guest with Debian's kernel: with nbd-client in its three ways, and with `dog nbd` alone.
 * One boot serves all tests; each leaves the devices detached.
 *
 * Data is compared after the file system was unmounted or the device detached: what comes back is the server's.
 */
import { readFile, writeFile } from 'node:fs/promises'
import test from 'ava'
import { certificates } from './support/certificates.js'
import { startCluster, type TestCluster } from './support/cluster.js'
import { LAB_DOG, LAB_DOGS, LAB_HOST, type LabGuest, startLabGuest } from './support/lab-guest.js'
import type { Owner } from './support/owner.js'
import { needing } from './support/suite.js'

const MEBIBYTE = 1024 * 1024
const SIZE_MIB = 512
const GROWN_MIB = 640
const PROGRAMS = [
  ...['nbd-client', 'sfdisk', 'mkfs.ext4', 'e2fsck', 'mkfs.xfs', 'xfs_repair'],
  ...['fstrim', 'blockdev', 'mount', 'umount', 'dd'],
] as const

interface Lab {
  readonly cluster: TestCluster
  /** Of the NBD doors' TLS; `keys.psk` is in there as well. */
  readonly pki: string
  readonly guest: LabGuest
}

const ends: (() => Promise<void>)[] = []
let failed = false
let lab: Promise<Lab> | undefined

/** The tests share what the first one starts, so it ends with the file. */
function openLab(log: (text: string) => void): Promise<Lab> {
  const owner: Owner = {
    teardown: (end) => void ends.unshift(end),
    get passed() {
      return !failed
    },
    log,
  }
  lab ??= (async () => {
    const pki = await certificates(owner)
    await writeFile(`${pki}/keys.psk`, `alice:${'5a'.repeat(32)}\n`)
    const keys = ['--nbd-tls-certificates', pki, '--nbd-tls-psk', `${pki}/keys.psk`]
    const options = ['--nbd-tls', 'on', ...keys, '--nbd-tls-verify-peer']
    const cluster = await startCluster(owner, { nodes: 2, copies: 2, place: () => ({ options }) })
    await cluster.dog('vdi create', 'Alice', `${SIZE_MIB}M`)
    const guest = await startLabGuest(owner, { programs: PROGRAMS })
    return { cluster, pki, guest }
  })()
  return lab
}

test.after.always('everything ends', async () => {
  for (const end of ends) await end()
})

const realTest = needing(
  ...(['qemu-system-x86_64', 'depmod', 'modprobe', 'mke2fs', 'e2fsck'] as const),
  ...(['nbd-client', 'sfdisk', 'mkfs.xfs', 'fstrim', 'openssl'] as const),
)

function kernelTest(title: string, body: (lab: Lab, t: Assertions) => Promise<void>): void {
  realTest(title, async (t) => {
    t.timeout(600_000)
    failed = true
    await body(await openLab((text) => t.log(text)), t)
    failed = false
  })
}

type Assertions = Parameters<Parameters<typeof realTest>[1]>[0]

async function usedBytes(cluster: TestCluster): Promise<number> {
  const { stdout } = await cluster.dog('vdi list', '--json')
  const { vdis } = JSON.parse(stdout) as { vdis: { name: string; usedBytes: number }[] }
  return vdis.find(({ name }) => name === 'Alice')!.usedBytes
}

const nbdPort = (cluster: TestCluster, index = 0): number => cluster.node(index).place.nbdPort

kernelTest(
  'nbd-client by netlink over four connections: partitions, ext4, xfs, fsync, fstrim, detach',
  async ({ cluster, guest }, t) => {
    const sysfs = await guest.sh(`
      nbd-client -N Alice -C 4 ${LAB_HOST} ${nbdPort(cluster)} /dev/nbd0 >&2
      cd /sys/block/nbd0; cat size queue/logical_block_size queue/write_cache queue/fua
      cat queue/discard_max_bytes; netstat -nt | grep -c ':${nbdPort(cluster)} .*ESTABLISHED'`)
    const told = sysfs.trim().split('\n').slice(-6)
    t.deepEqual(told.slice(0, 4), [`${SIZE_MIB * 2048}`, '512', 'write back', '1'])
    t.true(Number(told[4]) > 0, 'the device takes no discards')
    t.is(told[5], '4')
    await guest.sh(`
      printf 'label: gpt\\nsize=64MiB\\nsize=320MiB\\n' | sfdisk -q /dev/nbd0
      mkfs.ext4 -q -E nodiscard /dev/nbd0p1
      mkfs.xfs -q -K /dev/nbd0p2
      mkdir -p /run/e /run/x; mount /dev/nbd0p1 /run/e; mount /dev/nbd0p2 /run/x
      dd if=/dev/urandom of=/run/data bs=1M count=16 status=none
      dd if=/run/data of=/run/e/data bs=1M conv=fsync status=none
      dd if=/run/data of=/run/x/data bs=1M conv=fsync status=none
      umount /run/e /run/x
      nbd-client -d /dev/nbd0; test $(cat /sys/block/nbd0/size) = 0`)
    const full = await usedBytes(cluster)
    await guest.sh(`
      nbd-client -N Alice -C 4 ${LAB_HOST} ${nbdPort(cluster)} /dev/nbd0
      blockdev --rereadpt /dev/nbd0
      mount /dev/nbd0p1 /run/e; mount /dev/nbd0p2 /run/x
      cmp /run/data /run/e/data; cmp /run/data /run/x/data
      rm /run/e/data /run/x/data; sync; fstrim /run/e; fstrim /run/x
      umount /run/e /run/x
      e2fsck -fn /dev/nbd0p1; xfs_repair -n /dev/nbd0p2
      nbd-client -d /dev/nbd0`)
    const trimmed = await usedBytes(cluster)
    t.true(full >= 32 * MEBIBYTE, `${full} bytes used before`)
    t.true(full - trimmed >= 16 * MEBIBYTE, `${full} bytes used before fstrim, ${trimmed} after`)
  },
)

kernelTest(
  'nbd-client by ioctl, the old handshake, -persist: a sheep that dies costs errors; attached again, all is there',
  async ({ cluster, guest }, t) => {
    const port = nbdPort(cluster)
    await guest.sh(`
      nbd-client -nonetlink -persist -g -N Alice ${LAB_HOST} ${port} /dev/nbd0
      dd if=/run/data of=/dev/nbd0 bs=1M count=8 seek=448 oflag=direct conv=fsync status=none`)
    await cluster.node(0).kill()
    const broken = await guest.trySh(
      'dd if=/dev/zero of=/dev/nbd0 bs=1M count=1 seek=460 oflag=direct',
    )
    t.not(broken.status, 0, 'a write without a server was taken')
    await cluster.node(0).start()
    await guest.sh(`
      while [ -e /sys/block/nbd0/pid ]; do nbd-client -d /dev/nbd0 || true; sleep 0.2; done
      nbd-client -nonetlink -g -N Alice ${LAB_HOST} ${port} /dev/nbd0
      dd if=/dev/nbd0 bs=1M skip=448 count=8 iflag=direct status=none | cmp -n 8388608 - /run/data
      nbd-client -d /dev/nbd0`)
    t.pass()
  },
)

kernelTest(
  'dog attaches through two sheep; one is killed under ext4, the disk goes on at the other, and grows in use',
  async ({ cluster, guest }, t) => {
    const servers = [0, 1].map((index) => `${LAB_HOST}:${nbdPort(cluster, index)}`).join(',')
    const attached = await guest.sh(
      `${LAB_DOG} nbd attach -s ${servers} -C 2 --persist Alice /dev/nbd1`,
    )
    t.is(attached, '/dev/nbd1\n')
    await guest.sh(
      'mkfs.ext4 -qF -E nodiscard /dev/nbd1 64M; mkdir -p /run/m; mount /dev/nbd1 /run/m',
    )
    // Each file is synced; the kill comes when some are there and more are to come.
    const writer = guest.sh(`
      for i in 1 2 3 4 5 6 7 8; do
        dd if=/run/data of=/run/m/$i bs=1M skip=$i count=2 conv=fsync status=none
        echo $i > /run/progress
      done`)
    await guest.sh('while [ ! -e /run/progress ]; do sleep 0.05; done')
    await cluster.node(0).kill()
    await writer
    await cluster.node(0).start()
    t.regex(await guest.sh('dmesg'), /reconnected socket/)
    await cluster.dogAt(1, 'vdi resize', ['Alice', `${GROWN_MIB}M`])
    const shown = await guest.sh(`${LAB_DOGS} <<'EOF'
      0 nbd refresh Alice
      ! test $(cat /sys/block/nbd1/size) = ${GROWN_MIB * 2048}
      0 nbd devices --json
      1 nbd detach /dev/nbd1
      ! umount /run/m; e2fsck -fn /dev/nbd1; mount /dev/nbd1 /run/m
      ! for i in 1 2 3 4 5 6 7 8; do dd if=/run/data bs=1M skip=$i count=2 status=none | cmp - /run/m/$i; done
      ! umount /run/m
      0 nbd detach Alice
      ! test $(cat /sys/block/nbd1/size) = 0\nEOF`)
    t.regex(shown, /in use/)
    const json = shown.slice(shown.indexOf('{'), shown.lastIndexOf('\n}') + 2)
    const { devices } = JSON.parse(json) as { devices: Record<string, unknown>[] }
    t.like(devices[0], {
      ...{ device: '/dev/nbd1', export: 'Alice', readOnly: false, servers: servers.split(',') },
      sizeBytes: GROWN_MIB * MEBIBYTE,
    })
    t.is(typeof devices[0]!.keeper, 'number')
  },
)

kernelTest(
  'dog attaches by ioctl where there is no netlink, to read only when told so',
  async ({ cluster, guest }, t) => {
    const server = `${LAB_HOST}:${nbdPort(cluster)}`
    await guest.sh(`
      ${LAB_DOG} nbd attach --ioctl --foreground -R -s ${server} Alice /dev/nbd2 > /run/told & dog=$!
      while ! grep -q nbd2 /run/told; do kill -0 $dog; sleep 0.1; done
      test $(cat /sys/block/nbd2/ro) = 1
      test $(cat /sys/block/nbd2/size) = ${GROWN_MIB * 2048}
      e2fsck -fn /dev/nbd2
      if dd if=/dev/zero of=/dev/nbd2 bs=4k count=1 oflag=direct; then false; fi
      nbd-client -d /dev/nbd2
      wait $dog
      test ! -e /sys/block/nbd2/pid`)
    t.pass()
  },
)

/** Puts the keys of a client into the guest, at /run/pki. */
async function putKeys({ guest, pki }: Lab): Promise<void> {
  const files = ['ca-cert.pem', 'client-cert.pem', 'client-key.pem', 'keys.psk']
  const put = files.map(async (name) => {
    const text = (await readFile(`${pki}/${name}`)).toString('base64')
    return `echo ${text} | base64 -d > /run/pki/${name}`
  })
  await guest.sh(['mkdir -p /run/pki', ...(await Promise.all(put))].join('\n'))
}

kernelTest(
  'dog attaches over TLS with certificates and with a key; the disk goes on at another sheep',
  async (lab, t) => {
    const { cluster, guest } = lab
    await putKeys(lab)
    const servers = [0, 1].map((index) => `${LAB_HOST}:${nbdPort(cluster, index)}`).join(',')
    // In the foreground, so that the guest starts Node once for each.
    const attach = (words: string): string => `
      rm -f /run/told /run/ended
      (status=0
      ${LAB_DOG} nbd attach --foreground ${words} Alice /dev/nbd3 > /run/told || status=$?
      echo $status > /run/ended) &
      while ! grep -q nbd3 /run/told; do test ! -e /run/ended; sleep 0.1; done`
    const ended = 'while [ ! -e /run/ended ]; do sleep 0.1; done; test $(cat /run/ended) = 0'
    // A relative path, although it is looked at again when it dials again.
    await guest.sh(`
      [ -e /run/data ] || dd if=/dev/urandom of=/run/data bs=1M count=8 status=none
      rm -f /run/progress
      cd /run
      ${attach(`-s ${servers} -C 2 --persist --tls-certificates pki --tls-hostname localhost`)}
      mkfs.ext4 -qF -E nodiscard /dev/nbd3 64M; mkdir -p /run/s; mount /dev/nbd3 /run/s`)
    const writer = guest.sh(`
      for i in 1 2 3 4; do
        dd if=/run/data of=/run/s/$i bs=1M skip=$i count=2 conv=fsync status=none
        echo $i > /run/progress
      done`)
    await guest.sh('while [ ! -e /run/progress ]; do sleep 0.05; done')
    await cluster.node(0).kill()
    await writer
    await cluster.node(0).start()
    const list = await cluster.dogAt(1, 'nbd list', ['--json'])
    const { connections } = JSON.parse(list.stdout) as {
      connections: { export: string | null; tls: boolean }[]
    }
    const open = connections.filter((one) => one.export === 'Alice')
    t.deepEqual(
      open.map(({ tls }) => tls),
      [true, true],
    )
    // With a key and nobody who dials again somebody stays as well, to carry the bytes. Detached, nobody does.
    const key = `--tls-psk /run/pki/keys.psk -s ${LAB_HOST}:${nbdPort(cluster, 1)}`
    await guest.sh(`
      umount /run/s
      nbd-client -d /dev/nbd3
      ${ended}
      ${attach(key)}
      e2fsck -fn /dev/nbd3; mount -o ro /dev/nbd3 /run/s
      for i in 1 2 3 4; do dd if=/run/data bs=1M skip=$i count=2 status=none | cmp - /run/s/$i; done
      umount /run/s
      nbd-client -d /dev/nbd3
      ${ended}
      test $(cat /sys/block/nbd3/size) = 0`)
  },
)
