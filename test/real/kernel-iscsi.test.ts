/**
 * The kernel's own iSCSI initiator, open-iscsi, in a guest with Debian's kernel, and the kernel's multipath over two sheep.
 * One boot serves all tests, which build on each other.
 *
 * Behind the guest's network the sheep are at another address than they know of, so portals are named by hand after the
 * discovery. Nobody runs multipathd: paths are put together with dmsetup.
 */
import { writeFile } from 'node:fs/promises'
import test from 'ava'
import { startCluster, type TestCluster } from './support/cluster.js'
import { LAB_HOST, type LabGuest, startLabGuest } from './support/lab-guest.js'
import { type Owner, scratch } from './support/owner.js'
import { freePort } from './support/ports.js'
import { needing } from './support/suite.js'

const PREFIX = 'iqn.2026-11.io.sheepdog'
const TARGET = `${PREFIX}:Alice`
const SECRET = 'twelve.bytes.or.more'
const SIZE_MIB = 128
const CONFIG = `
[iscsi]
[[iscsi.target]]
name = "Alice"
chap = [{ user = "guest", secret = "${SECRET}" }]
`
const PROGRAMS = [
  ...['iscsid', 'iscsiadm', 'dmsetup', 'sg_rtpg', 'sg_persist', 'sg_compare_and_write'],
  ...['mkfs.ext4', 'e2fsck', 'blockdev', 'mount', 'umount', 'dd'],
] as const

/** `disk PORT`: the name of the block device that came by that portal. */
const HELPERS = `
  disk() {
    for session in /sys/class/iscsi_session/session*; do
      grep -qx $1 $session/device/connection*/iscsi_connection/*/persistent_port || continue
      ls $session/device/target*/*:*/block
    done
  }
  portal() { echo ${LAB_HOST}:$1; }
  log_in() {
    iscsiadm -m node -T ${TARGET} -p $(portal $1) --login > /dev/null
    for i in $(seq 200); do
      name=$(disk $1)
      if [ -n "$name" ] && [ -b /dev/$name ]; then return; fi
      sleep 0.05
    done
    false
  }
`

interface Lab {
  readonly cluster: TestCluster
  readonly guest: LabGuest
  readonly ports: readonly number[]
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
    const ports = [await freePort(), await freePort()]
    const config = `${await scratch(owner)}/sheep.toml`
    await writeFile(config, CONFIG, { mode: 0o600 })
    const place = (i: number) => ({
      options: ['--iscsi', `127.0.0.1:${ports[i]}`, '--config', config],
    })
    const [cluster, guest] = await Promise.all([
      startCluster(owner, { nodes: 2, copies: 2, place }),
      startLabGuest(owner, { programs: PROGRAMS }),
    ])
    await cluster.dog('vdi create', 'Alice', `${SIZE_MIB}M`)
    return { cluster, guest, ports }
  })()
  return lab
}

test.after.always('everything ends', async () => {
  for (const end of ends) await end()
})

const realTest = needing(
  ...(['qemu-system-x86_64', 'depmod', 'modprobe', 'mke2fs', 'e2fsck'] as const),
  ...(['iscsid', 'iscsiadm', 'dmsetup', 'sg_rtpg', 'sg_persist', 'sg_compare_and_write'] as const),
)

type Assertions = Parameters<Parameters<typeof realTest>[1]>[0]

function kernelTest(title: string, body: (lab: Lab, t: Assertions) => Promise<void>): void {
  realTest(title, async (t) => {
    t.timeout(600_000)
    failed = true
    await body(await openLab((text) => t.log(text)), t)
    failed = false
  })
}

kernelTest(
  'open-iscsi discovers, proves who it is, makes a file system, and goes on by itself when its sheep comes back',
  async ({ cluster, guest, ports: [port] }, t) => {
    const found = await guest.sh(`
      mkdir -p /etc/iscsi /var/lib/iscsi /run/lock/iscsi
      # Its daemon wants to know by name who talks with it.
      echo root:x:0:0::/root:/bin/sh > /etc/passwd
      echo InitiatorName=iqn.2026-11.test:guest > /etc/iscsi/initiatorname.iscsi
      echo node.startup = manual > /etc/iscsi/iscsid.conf
      echo node.conn[0].timeo.noop_out_interval = 2 >> /etc/iscsi/iscsid.conf
      echo node.conn[0].timeo.noop_out_timeout = 10 >> /etc/iscsi/iscsid.conf
      iscsid
      iscsiadm -m discovery -t sendtargets -p ${LAB_HOST}:${port}`)
    t.regex(found, new RegExp(`^127\\.0\\.0\\.1:${port},\\d+ ${TARGET}$`, 'm'))
    const stranger = await guest.trySh(`${HELPERS}
      iscsiadm -m node -T ${TARGET} -p $(portal ${port}) -o new > /dev/null
      iscsiadm -m node -T ${TARGET} -p $(portal ${port}) --login`)
    t.regex(stranger.output, /authorization failure/)
    await guest.sh(`${HELPERS}
      set_to() { iscsiadm -m node -T ${TARGET} -p $(portal ${port}) -o update -n $1 -v $2; }
      set_to node.session.auth.authmethod CHAP
      set_to node.session.auth.username guest
      set_to node.session.auth.password ${SECRET}
      log_in ${port}
      sda=/dev/$(disk ${port})
      test $(blockdev --getsize64 $sda) = ${SIZE_MIB * 1024 * 1024}
      mkfs.ext4 -qF -E nodiscard $sda; mkdir -p /run/m; mount $sda /run/m
      dd if=/dev/urandom of=/run/data bs=1M count=12 status=none`)
    const writer = guest.sh(`
      for i in 1 2 3 4 5 6; do
        dd if=/run/data of=/run/m/$i bs=1M skip=$i count=2 conv=fsync status=none
        echo $i > /run/progress
      done`)
    await guest.sh('while [ ! -e /run/progress ]; do sleep 0.05; done')
    await cluster.node(0).kill()
    await cluster.node(0).start()
    await writer
    await guest.sh(`${HELPERS}
      umount /run/m; sda=/dev/$(disk ${port}); blockdev --flushbufs $sda; e2fsck -fn $sda; mount $sda /run/m
      for i in 1 2 3 4 5 6; do dd if=/run/data bs=1M skip=$i count=2 status=none | cmp - /run/m/$i; done
      umount /run/m`)
    t.regex(await guest.sh('dmesg'), /detected conn error/)
  },
)

kernelTest(
  'over two sheep it is one disk with two paths, and what is reserved or compared over one counts over the other',
  async ({ guest, ports }, t) => {
    const [one, two] = ports
    const shown = await guest.sh(`${HELPERS}
      iscsiadm -m node -T ${TARGET} -p $(portal ${two}) -o new > /dev/null
      for setting in authmethod=CHAP username=guest password=${SECRET}; do
        iscsiadm -m node -T ${TARGET} -p $(portal ${two}) -o update \\
          -n node.session.auth.\${setting%%=*} -v \${setting#*=}
      done
      log_in ${two}
      for port in ${one} ${two}; do cat /sys/block/$(disk $port)/device/wwid; done
      for port in ${one} ${two}; do sg_rtpg -d /dev/$(disk $port) | grep -c 'asymmetric access state'; done
      sg_rtpg -d /dev/$(disk ${two})`)
    const [wwid, other, count, same] = shown.split('\n')
    t.regex(wwid!, /^t10\.SHEEPDOG[0-9a-f]{16}$/)
    t.deepEqual([other, count, same], [wwid, '2', '2'])
    t.regex(shown, /active\/optimized[\s\S]*active\/non optimized/)
    const write = (port: string): string =>
      `dd if=/run/data of=/dev/$(disk ${port}) bs=4k count=1 oflag=direct status=none`
    await guest.sh(`${HELPERS}
      sg_persist -o -G -S 1 /dev/$(disk ${one}) > /dev/null
      sg_persist -o -R -K 1 -T 5 /dev/$(disk ${one}) > /dev/null
      if ${write(`${two}`)}; then false; fi
      ${write(`${one}`)}
      sg_persist -o -G -S 2 /dev/$(disk ${two}) > /dev/null
      ${write(`${two}`)}
      sg_persist -o -C -K 2 /dev/$(disk ${two}) > /dev/null`)
    // By reading the kernel also hears over the first path that its reservation is gone. Old bytes, then new ones; who comes second does not find the old ones any more.
    const compared = await guest.sh(`${HELPERS}
      dd if=/dev/$(disk ${one}) bs=512 count=1 iflag=direct status=none > /run/old
      dd if=/run/data bs=512 count=1 skip=9 status=none > /run/new
      cat /run/old /run/new > /run/step
      sg_compare_and_write -l 0 -n 1 -i /run/step /dev/$(disk ${two}) && echo done
      sg_compare_and_write -l 0 -n 1 -i /run/step /dev/$(disk ${one}) > /run/told 2>&1 || echo $?
      dd if=/dev/$(disk ${one}) bs=512 count=1 iflag=direct status=none | cmp - /run/new`)
    t.is(compared, 'done\n14\n')
  },
)

kernelTest(
  'multipath goes on over the other sheep when the one with the disk is killed, without an error or a lost byte',
  async ({ cluster, guest, ports: [one, two] }, t) => {
    await guest.sh(`${HELPERS}
      for session in /sys/class/iscsi_session/session*; do
        grep -qx ${one} $session/device/connection*/iscsi_connection/*/persistent_port || continue
        echo 2 > $session/recovery_tmo
      done
      a=$(disk ${one}) b=$(disk ${two})
      path() { echo service-time 0 1 1 $(cat /sys/block/$1/dev) 1; }
      dmsetup create alice --noudevsync --noudevrules --table \\
        "0 $(blockdev --getsz /dev/$a) multipath 1 queue_if_no_path 0 2 1 $(path $a) $(path $b)"
      mkfs.ext4 -qF -E nodiscard /dev/dm-0; mount /dev/dm-0 /run/m; rm /run/progress`)
    const writer = guest.sh(`
      for i in 1 2 3 4 5 6; do
        dd if=/run/data of=/run/m/$i bs=1M skip=$i count=2 conv=fsync status=none
        echo $i > /run/progress
      done`)
    await guest.sh('while [ ! -e /run/progress ]; do sleep 0.05; done')
    await cluster.node(0).kill()
    await writer
    const after = await guest.sh(`
      umount /run/m; blockdev --flushbufs /dev/dm-0; e2fsck -fn /dev/dm-0; mount /dev/dm-0 /run/m
      for i in 1 2 3 4 5 6; do dd if=/run/data bs=1M skip=$i count=2 status=none | cmp - /run/m/$i; done
      umount /run/m; dmsetup status alice; dmsetup remove alice`)
    t.regex(after, / 8:\d+ F .* 8:\d+ A /, 'the first path has failed, the second one is in use')
    t.notRegex(await guest.sh('dmesg'), /I\/O error, dev dm-0/)
    await cluster.node(0).start()
    t.pass()
  },
)
