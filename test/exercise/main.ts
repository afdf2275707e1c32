/**
 * `npm run sheepfs:exercise`: the exerciser of test/real/sheepfs-faults.test.ts for as long as one likes, on a real mount of three
 * real daemons.
 *
 *   --ops N    operations (1000000)
 *   --seed N   of what is done (1)
 *   --size MIB largest size of the file (32)
 */
import { mkdir } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { startCluster } from '../real/support/cluster.js'
import { exercise } from '../real/support/exerciser.js'
import { mountCluster } from '../real/support/mount.js'
import type { Owner } from '../real/support/owner.js'

const MiB = 1024 * 1024
const say = (text: string): void => void process.stderr.write(`${text}\n`)

async function main(): Promise<void> {
  const string = (fallback: string) => ({ type: 'string', default: fallback }) as const
  const { values } = parseArgs({
    options: { ops: string('1000000'), seed: string('1'), size: string('32') },
  })
  const ends: (() => Promise<void>)[] = []
  const owner: Owner = { teardown: (end) => void ends.push(end), passed: true, log: say }
  try {
    const mount = await mountCluster(owner, await startCluster(owner))
    await mkdir(mount.path('vdi', 'Alice'))
    const done = await exercise(mount.disk('Alice'), {
      seed: Number(values.seed),
      operations: Number(values.ops),
      fileBytesMax: Number(values.size) * MiB,
      progress: (count) => say(`${count} operations`),
    })
    console.log(done)
    if ((await mount.unmount()) !== 0) throw new Error('sheepfs did not end in order')
  } finally {
    for (const end of ends.reverse()) await end()
  }
}

await main()
