/** A whole Linux guest lives on a volume: boots from it, writes, powers off, and finds its file again. */
import { mkdir } from 'node:fs/promises'
import { nbdcopy } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { bootGuest, fillGuestRoot, guestParts } from './support/guest.js'
import { run } from './support/run.js'
import { needing } from './support/suite.js'

const DISK_MIB = 256
const realTest = needing(
  ...([
    'qemu-system-x86_64',
    'depmod',
    'modprobe',
    'mke2fs',
    'e2fsck',
    'debugfs',
    'nbdcopy',
  ] as const),
)

/** First boot writes and signs; the second boot checks the signature and leaves a second proof. */
const INIT = `#!/bin/busybox sh
export PATH=/bin
alias b=/bin/busybox
b mount -o remount,rw /
if [ -e /root/data ]; then
  b sha256sum -c /root/data.sum && b echo 'second boot' > /root/proof2
else
  b dd if=/dev/urandom of=/root/data bs=64k count=256
  b sha256sum /root/data > /root/data.sum
  b echo 'first boot' > /root/proof1
fi
b sync
b mount -o remount,ro /
b echo '@@DONE'
b poweroff -f
`

realTest(
  'a Debian kernel boots from a volume, writes, powers off, and finds its data again',
  async (t) => {
    t.timeout(600_000)
    const parts = await guestParts((line) => t.log(line))
    const cluster = await startCluster(t)
    const at = (name: string) => `${cluster.directory}/${name}`
    await mkdir(at('root'))
    await fillGuestRoot(at('root'), parts, INIT)
    await run(['mke2fs', '-q', '-t', 'ext4', '-d', at('root'), at('image'), `${DISK_MIB}M`])
    await cluster.dog('vdi create', 'Guest', `${DISK_MIB}M`)
    await nbdcopy(at('image'), cluster.uri('Guest'))

    t.regex((await bootGuest(parts, cluster.uri('Guest'))).stdout, /@@DONE/)
    t.regex((await bootGuest(parts, cluster.uri('Guest', 1))).stdout, /@@DONE/)
    await nbdcopy(cluster.uri('Guest', 2), at('after'))
    await run(['e2fsck', '-fn', at('after')])
    for (const [file, text] of [
      ['/root/proof1', 'first boot\n'],
      ['/root/proof2', 'second boot\n'],
    ] as const) {
      t.is((await run(['debugfs', '-R', `cat ${file}`, at('after')])).stdout, text)
    }
  },
)
