/** `dog vdi track`: where an object belonged in each epoch. */
import { nodeKey } from '../model/node.js'
import { dataOid, inodeOid, type Oid, oidName, vidName } from '../model/oid.js'
import { reasonOf } from './client.js'
import { readHistory } from './cluster-info.js'
import type { Context, Subcommand } from './command.js'
import { Exit, failed } from './failure.js'
import { vdiOption as option } from './options.js'
import { openOr, ownerOf, placesOf, storageNodes } from './placement.js'
import { checkIndex } from './vdi-object.js'

const LINE = '-'.repeat(51)

export const track: Subcommand = {
  name: 'track',
  summary: 'show the object evolving track in the image',
  options: [
    ...[option.index, option.snapshot, option.address, option.port, option.help, option.oid],
    ...[option.time, option.json],
  ],
  synopsis: '<vdiname>',
  needsOperand: true,
  run: runTrack,
}

async function runTrack(context: Context): Promise<number> {
  const { operands, options, out, sheep } = context
  const vdi = await openOr(context, operands[0] ?? '', 'FATAL: no inode objects')
  const { index } = options
  const nodes = await sheep.nodes()
  const inode = `0x${vidName(vdi.vid)}`
  const { copies } = vdi.header
  let oid = options.oid as Oid | undefined
  let what = `the object ${oidName(oid ?? (0n as Oid))} (the inode vid ${inode})`
  if (oid === undefined && index !== undefined) {
    checkIndex(context, index)
    oid = dataOid(await ownerOf(context, vdi, index), index)
    what = `the object ${oidName(oid)} (the inode vid ${inode} idx ${index})`
  } else if (oid === undefined) {
    oid = inodeOid(vdi.vid)
    what = `the inode object ${inode}`
  }
  const { records } = await readHistory(sheep).catch((error: unknown) => {
    throw failed(`Failed to get the history of the cluster: ${reasonOf(error)}`)
  })
  const wanted = oid
  const epochs = records.map(({ epoch, nodes: members }) => {
    const storage = storageNodes(members)
    // Where there are fewer than copies everybody has one. (1.0 repeats such an epoch for ever.)
    const places = storage.length < copies ? storage : placesOf(members, wanted, copies)
    return { epoch, places: places.map(nodeKey) }
  })
  if (options.json) {
    out.json({ oid: oidName(wanted), copies, epochs })
    return Exit.ok
  }
  out.line(`Tracking ${what} with ${nodes.length} nodes`)
  for (const { epoch, places } of epochs) {
    out.line(`\nobj ${oidName(wanted)} locations at epoch ${epoch}, copies = ${copies}`)
    out.line(LINE)
    for (const place of places) out.line(place)
  }
  return Exit.ok
}
