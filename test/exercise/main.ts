/**
 * `npm run sheepfs:exercise`: the exerciser of test/real/sheepfs-faults.test.ts for as long as one likes, on a real mount of three
 * real daemons, and after it fio, which writes each block with a checksum and a place and reads it back. (Debian has no package of
 * fsx.)
 *
 *   --ops N     operations of the exerciser (1000000); of fio at least as many
 *   --seed N    of what is done (1)
 *   --size MIB  largest size of the exerciser's file (32)
 *   --piece KIB largest read and write of the exerciser (128)
 *   --only NAME exerciser, or fio
 */
import { mkdir } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { startCluster } from '../real/support/cluster.js'
import { exercise } from '../real/support/exerciser.js'
import { mountCluster } from '../real/support/mount.js'
import type { Owner } from '../real/support/owner.js'
import { verifyByFio } from './fio.js'

const MiB = 1024 * 1024
const say = (text: string): void => void process.stderr.write(`${text}\n`)

async function main(): Promise<void> {
  const string = (fallback: string) => ({ type: 'string', default: fallback }) as const
  const { values } = parseArgs({
    options: {
      ...{ ops: string('1000000'), seed: string('1'), size: string('32'), piece: string('128') },
      only: { type: 'string' },
    },
  })
  const [operations, seed] = [Number(values.ops), Number(values.seed)]
  const ends: (() => Promise<void>)[] = []
  const owner: Owner = { teardown: (end) => void ends.push(end), passed: true, log: say }
  try {
    const mount = await mountCluster(owner, await startCluster(owner))
    if (values.only !== 'fio') {
      await mkdir(mount.path('vdi', 'Alice'))
      const done = await exercise(mount.disk('Alice'), {
        ...{ seed, operations },
        fileBytesMax: Number(values.size) * MiB,
        pieceBytesMax: Number(values.piece) * 1024,
        progress: (count) => say(`${count} operations`),
      })
      console.log(done)
    }
    if (values.only !== 'exerciser') {
      await mkdir(mount.path('vdi', 'Bob'))
      console.log(await verifyByFio(mount.disk('Bob'), { seed, operations }))
    }
    if ((await mount.unmount()) !== 0) throw new Error('sheepfs did not end in order')
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

await main()
