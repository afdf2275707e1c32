/** A hypervolume of petabytes on real daemons: QEMU's NBD client at its far end, through restarts, and back to nothing. */
import { qemuIo } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { run, until } from './support/run.js'
import { objectsOf } from './support/same-copies.js'
import { needing } from './support/suite.js'

const realTest = needing('qemu-io', 'nbdinfo')
const PIB = 2 ** 50
const RECLAIM_MS = 30_000

realTest(
  'a disk of four pebibytes keeps what is written at both ends, over restarts',
  async (t) => {
    t.timeout(300_000)
    const cluster = await startCluster(t, { copies: 2 })
    await cluster.dog('vdi create', 'huge', '4P', '-y')
    const uri = cluster.uri('huge')
    const size = await run(['nbdinfo', '--size', uri])
    t.is(Number(size.stdout), 4 * PIB)
    const places = [0, 3 * PIB, 4 * PIB - (1 << 20)]
    const words = (verb: string): string[] => places.map((at, i) => `${verb} -P ${i + 7} ${at} 64k`)
    await qemuIo(uri, [...words('write'), 'flush'])
    await cluster.killAll()
    for (const node of cluster.nodes) await node.start()
    await cluster.members(3)
    const { stdout } = await qemuIo(cluster.uri('huge', 2), [
      ...words('read'),
      `read -P 0 ${2 * PIB} 1M`,
    ])
    t.false(/verification failed/.test(stdout), stdout)
    await cluster.dog('vdi delete', 'huge')
    await until('the space given back', RECLAIM_MS, async () => {
      const lists = await Promise.all(cluster.nodes.map(({ objects }) => objectsOf(objects)))
      return lists.flat().every((name) => name.startsWith('80'))
    })
    t.pass()
  },
)
