/** A file system made from a real tree goes in, is snapshotted, cloned and taken out: file by file the same. */
import { mkdir, writeFile } from 'node:fs/promises'
import { nbdcopy, qemuImg } from './support/clients.js'
import { startCluster } from './support/cluster.js'
import { sameFiles } from './support/images.js'
import { run } from './support/run.js'
import { needing } from './support/suite.js'
import {
  copyPart,
  differingEntries,
  listTree,
  treeMebibytes,
  unpackImage,
} from './support/trees.js'

const TREE_MIB = 96
const realTest = needing('mke2fs', 'e2fsck', 'debugfs', 'qemu-img', 'nbdcopy')

realTest(
  'an ext4 tree survives conversion, snapshot and clone, and the clone stays apart',
  async (t) => {
    t.timeout(600_000)
    const cluster = await startCluster(t)
    const at = (name: string) => `${cluster.directory}/${name}`
    const mebibytes = await makeTreeImage(at('tree'), at('image'))
    await cluster.dog('vdi create', 'Alice', `${mebibytes}M`)
    await qemuImg('convert', '-n', '-f', 'raw', '-O', 'raw', at('image'), cluster.uri('Alice'))
    await cluster.dog('vdi snapshot', '-s', 'first', 'Alice')
    await cluster.dog('vdi clone', '-s', 'first', 'Alice', 'Dolly')

    await nbdcopy(cluster.uri('Dolly'), at('dolly'))
    await run(['e2fsck', '-fn', at('dolly')])
    await mkdir(at('unpacked'))
    await unpackImage(at('dolly'), at('unpacked'))
    t.true((await listTree(at('unpacked'))).length > 1000)
    t.deepEqual(await differingEntries(at('tree'), at('unpacked')), [])

    await writeFile(at('proof'), 'only in the clone\n')
    await run(['debugfs', '-w', '-R', `write ${at('proof')} /proof`, at('dolly')])
    await nbdcopy(at('dolly'), cluster.uri('Dolly'))
    await nbdcopy(cluster.uri('Dolly', 1), at('dolly2'))
    await sameFiles(at('dolly'), at('dolly2'))
    const { stdout } = await run(['debugfs', '-R', 'cat /proof', at('dolly2')])
    t.is(stdout, 'only in the clone\n')
    for (const untouched of ['Alice', 'Alice@first']) {
      await qemuImg('compare', '-f', 'raw', '-F', 'raw', at('image'), cluster.uri(untouched, 2))
    }
  },
)

/** A part of this machine's own files, in a copy that nobody changes meanwhile, and an image of it. Returns the image's MiB. */
async function makeTreeImage(tree: string, image: string): Promise<number> {
  await mkdir(tree)
  await copyPart('/usr/share', tree, TREE_MIB)
  const mebibytes = Math.ceil((await treeMebibytes(tree)) * 1.15) + 64
  const layout = ['-b', '4096', '-i', '8192', '-d', tree]
  await run(['mke2fs', '-q', '-t', 'ext4', ...layout, image, `${mebibytes}M`])
  return mebibytes
}
