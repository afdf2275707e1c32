/** `dog vdi object`: where an object is, which objects a volume has, and what an inode's file says. */

import { HYPER_OBJECTS_MAX } from '../model/hyper-tree.js'
import { decodeInodeHeader, InodeImage } from '../model/inode.js'
import { nodeKey } from '../model/node.js'
import { dataOid, INODE_BYTES, inodeOid, type Oid, oidName, vidName } from '../model/oid.js'
import type { Context, ThirdWord } from './command.js'
import { errnoText } from './errno.js'
import { Exit, Failure, failed } from './failure.js'
import type { OpenedVdi } from './image.js'
import { loadMap } from './object-map.js'
import { vdiOption as option } from './options.js'
import { openOr, ownerOf, placesOf, presence, storageNodes } from './placement.js'
import { withWords } from './third-words.js'

const location: ThirdWord = {
  name: 'location',
  summary: 'show object location information',
  synopsis: '<vdiname>',
  needsOperand: true,
  run: runLocation,
}

const map: ThirdWord = {
  name: 'map',
  summary: 'show object map information',
  synopsis: '<vdiname>',
  needsOperand: true,
  run: runMap,
}

const dumpInode: ThirdWord = {
  name: 'dump-inode',
  summary: 'dump inode information',
  synopsis: '<vdiname>',
  needsOperand: true,
  run: runDump,
}

export const object = withWords({
  name: 'object',
  summary: 'show object information in the image',
  options: [
    ...[option.index, option.snapshot, option.address, option.port, option.help, option.time],
    option.json,
  ],
  synopsis: '<vdiname>',
  words: [location, map, dumpInode],
})

async function runLocation(context: Context): Promise<number> {
  const { operands, options, out, sheep } = context
  const vdi = await openOr(context, operands[0] ?? '', 'FATAL: no inode objects')
  const inode = vidName(vdi.vid)
  const { copies } = vdi.header
  const { index } = options
  let oid = inodeOid(vdi.vid)
  const nodes = await sheep.nodes()
  let head = `Looking for the inode object 0x${inode} with ${nodes.length} nodes`
  if (index !== undefined) {
    checkIndex(context, index)
    const owner = await ownerOf(context, vdi, index)
    if (owner === 0) {
      if (options.json) out.json({ oid: null, nodes: [], places: [] })
      else out.line(`The inode object 0x${inode} idx ${index} is not allocated`)
      return Exit.ok
    }
    oid = dataOid(owner, index)
    const about = `(vid 0x${inode} idx ${index}, ${copies} copies)`
    head = `Looking for the object ${oidName(oid)} ${about} with ${nodes.length} nodes`
  }
  if (!options.json) out.line(`${head}\n`)
  const found = await lookAround(context, vdi, oid)
  const storage = storageNodes(nodes)
  const places = placesOf(nodes, oid, copies).map(nodeKey)
  if (options.json) out.json({ oid: oidName(oid), nodes: found, places })
  else if (storage.length < copies) {
    out.line(
      `\nBecause number of nodes (${storage.length}) is less than number of copies (${copies}), ` +
        'the object should be located at every nodes.',
    )
  } else {
    out.line('\nAccording to sheepdog algorithm, the object should be located at:')
    out.line(places.join(' '))
  }
  return Exit.ok
}

/** Tells of each node in turn; with --json it is returned only. */
async function lookAround(
  { out, options, sheep }: Context,
  vdi: OpenedVdi,
  oid: Oid,
): Promise<{ readonly node: string; readonly hasObject: boolean | null }[]> {
  const found: { node: string; hasObject: boolean | null }[] = []
  for (const node of await sheep.nodes()) {
    const key = nodeKey(node)
    const peer = sheep.peer(node)
    const state = await presence(peer, oid, vdi).finally(() => peer.close())
    if (typeof state === 'object') {
      out.error(`${key}: hit an unexpected error (${state.reason})`)
      found.push({ node: key, hasObject: null })
      continue
    }
    const hasObject = state === 'there'
    found.push({ node: key, hasObject })
    if (!options.json) out.line(`${key} ${hasObject ? 'has' : "doesn't have"} the object`)
  }
  return found
}

/** 1.0 read behind its array for what no plain volume has, and says this of what no volume can have. */
export function checkIndex({ out }: Pick<Context, 'out'>, index: number): void {
  if (index < HYPER_OBJECTS_MAX) return
  out.line('The offset is too large!')
  throw new Failure(Exit.failed, [])
}

async function runMap(context: Context): Promise<number> {
  const { operands, options, out, sheep } = context
  const name = operands[0] ?? ''
  const vdi = await openOr(context, name, `FATAL: ${name} not found`)
  const objects = await loadMap(sheep, vdi)
  const { index: only } = options
  const rows: { index: number; vid: string }[] = []
  const add = (index: number): void => {
    rows.push({ index, vid: vidName(objects.vid(index)) })
  }
  if (only !== undefined) {
    checkIndex(context, only)
    add(only)
  } else {
    for (let at = objects.next(0, HYPER_OBJECTS_MAX); at !== undefined; ) {
      add(at)
      at = objects.next(at + 1, HYPER_OBJECTS_MAX)
    }
  }
  if (options.json) {
    out.json({ name, vid: vidName(vdi.vid), objects: rows })
    return Exit.ok
  }
  out.line('Index       VID')
  for (const { index, vid } of rows) {
    out.line(`${String(index).padStart(8, '0')} ${vid.padStart(8)}`)
  }
  return Exit.ok
}

/** Of a file of a store, without any sheep. */
async function runDump({ operands, options, io, out }: Context): Promise<number> {
  const inode = new InodeImage(await readInodeFile(io, operands[0] ?? ''))
  const header = decodeInodeHeader(inode.bytes)
  const slots = inode.allocated()
  if (options.json) {
    const slotRows = slots.map((index) => ({ index, vid: vidName(inode.slot(index)) }))
    const refRows = slots.map((index) => ({ index, ...inode.ref(index) }))
    const fields = Object.fromEntries(fieldsOf(header))
    out.json({ ...fields, data_vdi_id: slotRows, gref: refRows })
    return Exit.ok
  }
  for (const [key, value] of fieldsOf(header)) out.line(`${key}: ${value}`)
  out.line('data_vdi_id:')
  for (const index of slots) out.line(`${index}: ${vidName(inode.slot(index))}`)
  out.line('gref:')
  for (const index of slots) {
    const { generation, count } = inode.ref(index)
    out.line(`${index}: ${vidName(inode.slot(index))}, ${generation}, ${count}`)
  }
  return Exit.ok
}

/** In 1.0's order and notation. */
function fieldsOf(header: ReturnType<typeof decodeInodeHeader>): [string, string][] {
  const hex = (value: bigint | number): string => value.toString(16)
  return [
    ['name', header.name],
    ['tag', header.tag],
    ['create_time', hex(header.createTime)],
    ['snap_ctime', hex(header.snapCtime)],
    ['vm_clock_nsec', hex(header.vmClockNsec)],
    ['vdi_size', String(header.sizeBytes)],
    ['vm_state_size', String(header.vmStateBytes)],
    ['copy_policy', String(header.policy)],
    ['store_policy', String(header.storePolicy)],
    ['nr_copies', String(header.copies)],
    ['block_size_shift', String(header.blockSizeShift)],
    ['snap_id', String(header.snapId)],
    ['vdi_id', hex(header.vid)],
    ['parent_vdi_id', hex(header.parent)],
    ['btree_counter', String(header.btreeCounter)],
  ]
}

async function readInodeFile(io: Context['io'], path: string): Promise<Buffer> {
  const file = await io.images.open(path).catch((error: unknown) => {
    throw failed(`failed to open inode object file: ${errnoText(error)}`)
  })
  try {
    if (file.sizeBytes < INODE_BYTES) {
      const sizes = `${file.sizeBytes} bytes, an inode has ${INODE_BYTES}`
      throw failed(`failed to read inode object file: ${sizes}`)
    }
    return await file.read(0, INODE_BYTES).catch((error: unknown) => {
      throw failed(`failed to read inode object file: ${errnoText(error)}`)
    })
  } finally {
    await file.close()
  }
}
