/** A Linux guest in QEMU 5.2 lives on a volume over the sheepdog protocol; its whole state is saved and loaded. */
import { mkdir, readFile, truncate } from 'node:fs/promises'
import type { ExecutionContext } from 'ava'
import { startCluster, type TestCluster } from './support/cluster.js'
import { fillGuestRoot, type GuestParts, guestParts } from './support/guest.js'
import { sameFiles } from './support/images.js'
import { drive, OldGuest } from './support/old-guest.js'
import { run, tryRun } from './support/run.js'
import { img, unixName, vdiName } from './support/sheepdog-clients.js'
import { needingQemu52 } from './support/suite.js'

const DISK_MIB = 64
/** In pieces of 64 KiB: where the file system ends, and how many are written behind it. */
const FREE = 640
const WRITTEN = 160
const realTest = needingQemu52('depmod', 'modprobe', 'mke2fs', 'e2fsck', 'debugfs')

/** The first boot writes behind its file system, the second one reads that. */
const WRITER = `#!/bin/busybox sh
alias b=/bin/busybox
b mount -o remount,ro / || b echo '@@BAD'
b mount -t tmpfs none /tmp
if b grep -q again /proc/cmdline; then
  b dd if=/dev/vda of=/tmp/data bs=64k skip=${FREE} count=${WRITTEN} iflag=direct 2> /dev/null
else
  b dd if=/dev/urandom of=/tmp/data bs=64k count=${WRITTEN} 2> /dev/null
  i=0
  while [ $i -lt ${WRITTEN} ]; do
    b dd if=/tmp/data of=/dev/vda bs=64k skip=$i seek=$((${FREE}+i)) count=1 oflag=direct 2> /dev/null ||
      b echo '@@BAD'
    i=$((i+1))
    b echo "@@wrote $i"
  done
fi
b echo "@@sum $(b sha256sum < /tmp/data)"
b sync
b poweroff -f
`

/** Counts in memory, on the disk and on the console. */
const COUNTER = `#!/bin/busybox sh
alias b=/bin/busybox
b mount -o remount,rw /
n=0
while :; do
  n=$((n+1))
  b echo $n >> /root/ticks
  b sync
  b echo "@@tick $n"
  b sleep 0.2
done
`

interface Rig {
  readonly cluster: TestCluster
  readonly parts: GuestParts
  readonly at: (name: string) => string
}

/** A cluster with the volume `Guest`, a root file system with `init` in it. */
async function rig(t: ExecutionContext, init: string): Promise<Rig> {
  t.timeout(600_000)
  const parts = await guestParts((line) => t.log(line))
  const cluster = await startCluster(t)
  const at = (name: string) => `${cluster.directory}/${name}`
  await mkdir(at('root'))
  await fillGuestRoot(at('root'), parts, init)
  await run(['mke2fs', '-q', '-t', 'ext4', '-d', at('root'), at('image'), `${FREE / 16}M`])
  await truncate(at('image'), DISK_MIB * 2 ** 20)
  await img('convert', '-f', 'raw', '-O', 'raw', at('image'), vdiName(cluster, 'Guest'))
  return { cluster, parts, at }
}

async function takeOut({ cluster, at }: Rig): Promise<void> {
  await img('convert', '-f', 'raw', '-O', 'raw', vdiName(cluster, 'Guest', 1), at('after'))
}

const SUM = /@@sum ([0-9a-f]{64})/

realTest(
  'a guest boots, writes over TCP while dog takes a snapshot, and finds it over the unix socket',
  async (t) => {
    const { cluster, parts, at } = await rig(t, WRITER)
    const disk = drive(vdiName(cluster, 'Guest'), 'writeback')
    const writing = new OldGuest(t, parts, { disk, monitor: at('monitor1') })
    await writing.says(/@@wrote 20\b/)
    await cluster.dogAt(2, 'vdi snapshot', ['Guest', '-s', 'live'])
    const [, written] = await writing.says(SUM)
    await writing.over()
    t.regex(writing.console, /@@wrote 160\b/)
    t.notRegex(writing.console, /@@BAD|I\/O error/)

    // The first pieces are in the snapshot as they are in the disk.
    // qemu-img counts what it skips.
    const pieces = [`skip=${FREE}`, `count=${FREE + 20}`, 'bs=64k']
    for (const [name, file] of [
      [vdiName(cluster, 'Guest:live', 1), at('then')],
      [vdiName(cluster, 'Guest', 1), at('now')],
    ] as const) {
      await img('dd', '-f', 'raw', '-O', 'raw', ...pieces, `if=${name}`, `of=${file}`)
    }
    await sameFiles(at('then'), at('now'))
    const then = await readFile(at('then'))
    t.is(then.length, 20 * 65_536)
    t.false(then.subarray(-65_536).equals(Buffer.alloc(65_536)))

    const unix = drive(unixName(cluster, 'Guest', 2), 'none')
    const hardware = { disk: unix, monitor: at('monitor2'), words: 'again' }
    const reading = new OldGuest(t, parts, hardware)
    const [, read] = await reading.says(SUM)
    await reading.over()
    t.is(read, written)
  },
)

realTest('savevm, loadvm, delvm: a machine goes back with its disk, and goes on', async (t) => {
  const given = await rig(t, COUNTER)
  const { cluster, parts, at } = given
  const { host, port } = cluster.node(0)
  const server = `server.type=inet,server.host=${host},server.port=${port}`
  const disk = ['-blockdev', `driver=sheepdog,node-name=root,${server},vdi=Guest`]
  const guest = new OldGuest(t, parts, { disk, monitor: at('monitor') })
  const ticks = () => [...guest.console.matchAll(/@@tick (\d+)/g)].map(([, n]) => Number(n))
  const tickedTo = (n: number, from: number) => guest.says(new RegExp(`@@tick ${n}\\b`), from)

  await guest.says(/@@tick 3\b/)
  await guest.tell('savevm one')
  const saved = ticks().at(-1)!
  await tickedTo(saved + 6, 0)
  await guest.tell('savevm two')
  let from = guest.console.length
  await guest.tell('loadvm one')
  await tickedTo(saved + 3, from)
  t.true(ticks().filter((n) => n === saved + 3).length === 2, 'the machine went back')
  t.regex((await cluster.dog('vdi list')).stdout, /one/)

  // A QEMU that deletes a snapshot forgets where its data are, until it loads a state.
  for (const command of ['stop', 'delvm two', 'savevm three', 'loadvm three', 'cont']) {
    await guest.tell(command)
  }
  from = guest.console.length
  const next = ticks().at(-1)! + 4
  await tickedTo(next, from)
  const known = await guest.ask('info snapshots')
  t.regex(known, /\bone\b/)
  t.regex(known, /\bthree\b/)
  t.notRegex(known, /\btwo\b/)
  await guest.ask('quit').catch(() => '')
  await guest.over()

  await takeOut(given)
  // The guest was cut off: its journal is played back.
  t.true((await tryRun(['e2fsck', '-fp', at('after')])).code <= 1)
  const { stdout } = await run(['debugfs', '-R', 'cat /root/ticks', at('after')])
  const lines = stdout.trim().split('\n').map(Number)
  t.true(lines.length >= next)
  t.deepEqual(
    lines,
    Array.from(lines, (_, i) => i + 1),
  )
})
