/**
 * Disks of real daemons under a client that writes: one is lost, one is pulled, new ones are put in. No client sees
 * an error, and afterwards every node reads what was written.
 */
import { randomFillSync } from 'node:crypto'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { nbdcopy } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { scratch } from './support/owner.js'
import { until } from './support/run.js'
import { needing } from './support/suite.js'

const MIB = 1024 * 1024
const IMAGE_BYTES = 64 * MIB
const DROP_MS = 60_000
const realTest = needing('nbdcopy')

realTest('disks are lost, pulled and put in under a client that writes', async (t) => {
  t.timeout(300_000)
  const top = await scratch(t)
  const disksOf = (index: number): string[] => [1, 2, 3].map((n) => `${top}/n${index}-d${n}`)
  for (const index of [0, 1, 2]) {
    for (const path of disksOf(index)) await mkdir(path, { recursive: true })
  }
  const place = (index: number) => ({ disks: disksOf(index) })
  const cluster = await startCluster(t, { copies: 2, place })
  await cluster.dog('vdi create', 'Alice', `${IMAGE_BYTES / MIB}M`)
  const image = `${top}/image`
  const bytes = Buffer.alloc(IMAGE_BYTES)
  const write = async (): Promise<void> => {
    randomFillSync(bytes)
    await writeFile(image, bytes)
    await nbdcopy(image, cluster.uri('Alice'))
  }
  const listed = async (index: number): Promise<string> =>
    (await cluster.dogAt(index, 'node md info', ['-r'])).stdout
  const same = async (): Promise<void> => {
    for (const index of [0, 1, 2]) {
      await nbdcopy(cluster.uri('Alice', index), `${top}/found`)
      t.true(bytes.equals(await readFile(`${top}/found`)), `read through node ${index}`)
    }
  }

  const [gone] = disksOf(1)
  const writing = write()
  await rm(gone!, { recursive: true })
  await writing
  await until(
    'the lost disk to be dropped',
    DROP_MS,
    async () => !(await listed(1)).includes(gone!),
  )
  await cluster.recovered()
  await same()

  const [pulled] = disksOf(2)
  const again = write()
  await cluster.dogAt(2, 'node md unplug', ['-f', pulled!])
  await again
  t.false((await listed(2)).includes(pulled!))
  await mkdir(`${top}/new`)
  await cluster.dogAt(1, 'node md plug', ['-f', `${top}/new`])
  await cluster.dogAt(2, 'node md plug', ['-f', pulled!])
  t.true((await listed(1)).includes(`${top}/new`))
  await cluster.recovered()
  await write()
  await same()

  // A node that is started again uses what was plugged, and not what was lost.
  await cluster.node(1).kill()
  await cluster.node(1).start()
  await cluster.recovered()
  const after = await listed(1)
  t.true(after.includes(`${top}/new`) && !after.includes(gone!), after)
  await same()
})
