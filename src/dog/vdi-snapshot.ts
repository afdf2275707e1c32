/** `dog vdi snapshot` and `clone`. */
import { cString } from '../base/bytes.js'
import { Code } from '../base/codes.js'
import { NAME_BYTES, TAG_OFFSET } from '../model/inode.js'
import { asVid, dataOid, inodeOid, type Vid, vidName } from '../model/oid.js'
import { reasonOf } from './client.js'
import type { Context, Subcommand } from './command.js'
import { Exit, failed, misused } from './failure.js'
import {
  hasCode,
  isHyper,
  loadSlots,
  type OpenedVdi,
  openVdi,
  readHeader,
  redundancyOf,
  refuseHyper,
  scanSlots,
} from './image.js'
import { makeObjects, type ObjectJob } from './objects.js'
import { vdiOption as option, WORKING } from './options.js'
import { makeVdi, newName, reopen, sayVid } from './vdi-create.js'

export const snapshot: Subcommand = {
  name: 'snapshot',
  summary: 'create a snapshot',
  options: [
    option.newTag,
    option.address,
    option.port,
    option.help,
    option.raw,
    option.verbose,
    option.time,
    option.reduceIdentical,
    option.json,
  ],
  synopsis: '<vdiname>',
  needsOperand: true,
  run: runSnapshot,
}

export const clone: Subcommand = {
  name: 'clone',
  summary: 'clone an image',
  options: [
    option.snapshot,
    option.prealloc,
    option.noShare,
    option.address,
    option.port,
    option.help,
    option.raw,
    option.verbose,
    option.time,
    option.json,
  ],
  synopsis: '<src vdi> <dst vdi>',
  needsOperand: true,
  run: runClone,
}

async function runSnapshot(context: Context): Promise<number> {
  const { options, operands, out } = context
  const name = operands[0] ?? ''
  const { tag } = options.snapshot ?? WORKING
  if (tag !== '') await checkTagFree(context, name, tag)
  const vdi = await openWorking(context, name)
  if (isHyper(vdi.header)) throw failed('creating a snapshot of hypervolume is not supported')
  if (options.reduceIdenticalSnapshots && !(await ownsObjects(context, vdi))) {
    if (options.verbose) {
      out.error(`VDI ${name} doesn't have its own objects, skipping creation of snapshot`)
    }
    return Exit.ok
  }
  const newVid = await succeed(context, name, tag, vdi)
  const [working, snap] = [vidName(newVid), vidName(vdi.vid)]
  if (options.json) out.json({ name, tag, vid: working, snapshotVid: snap })
  else if (options.verbose && options.raw) out.line(`${working} ${snap}`)
  else if (options.verbose) {
    out.line(`new VID of original VDI: ${working}, VDI ID of newly created snapshot: ${snap}`)
  }
  return Exit.ok
}

/** Tags the working VDI, then asks for its successor, which turns it into the snapshot. */
export async function succeed(
  { sheep }: Context,
  name: string,
  tag: string,
  { vid, header }: OpenedVdi,
): Promise<Vid> {
  const redundancy = redundancyOf(header)
  const writeTag = (text: string): Promise<void> => {
    const data = cString(text, NAME_BYTES)
    return sheep.writeObject({ oid: inodeOid(vid), offset: TAG_OFFSET, data, redundancy })
  }
  try {
    await writeTag(tag)
  } catch (error) {
    throw failed(`Failed to create snapshot for ${name}: ${reasonOf(error)}`)
  }
  const { sizeBytes, blockSizeShift } = header
  try {
    return await sheep.newVdi({
      ...{ name, sizeBytes, blockSizeShift },
      ...{ base: vid, snapshot: true },
      ...redundancy,
    })
  } catch (error) {
    const refusal = failed(`Failed to create VDI ${name}: ${reasonOf(error)}`)
    // Without an answer the snapshot may exist, and then the tag is its own.
    if (hasCode(error, Code.EIO)) throw refusal
    await writeTag(header.tag)
    throw refusal
  }
}

async function checkTagFree(context: Context, name: string, tag: string): Promise<void> {
  try {
    await context.sheep.lookup(name, { snapId: 0, tag })
  } catch (error) {
    if (hasCode(error, Code.NO_TAG, Code.NO_VDI)) return
    throw failed(`Failed to create snapshot for ${name}: ${reasonOf(error)}`)
  }
  throw failed(
    `Failed to create snapshot for ${name}, maybe snapshot id (0) or tag (${tag}) is existed`,
  )
}

async function openWorking(context: Context, name: string): Promise<OpenedVdi> {
  try {
    const vid = await context.sheep.lookup(name, WORKING)
    return { vid, header: await readHeader(context.sheep, vid) }
  } catch (error) {
    throw failed(`Failed to create snapshot for ${name}: ${reasonOf(error)}`)
  }
}

export async function ownsObjects(context: Context, vdi: OpenedVdi): Promise<boolean> {
  let owns = false
  await scanSlots(context.sheep, vdi, (_first, vids) => {
    owns ||= vids.includes(vdi.vid)
  })
  return owns
}

async function runClone(context: Context): Promise<number> {
  const { options, operands, sheep } = context
  const [sourceName, targetName] = operands
  if (options.snapshot === undefined) {
    throw misused('Only snapshot VDIs can be cloned', "Please specify the '-s' option")
  }
  if (targetName === undefined) throw misused('Destination VDI name must be specified')
  const name = newName(targetName)
  const source = await openVdi(sheep, sourceName ?? '', options.snapshot)
  const independent = options.share === false
  if (independent || options.prealloc) refuseHyper(sourceName ?? '', source.header)
  const { header } = source
  const vid = await makeVdi(context, {
    name,
    sizeBytes: header.sizeBytes,
    base: independent ? 0 : source.vid,
    blockSizeShift: header.blockSizeShift,
    hyper: isHyper(header),
    ...redundancyOf(header),
  })
  if (independent || options.prealloc) await fillClone(context, source, vid)
  sayVid(context, 'VDI ID of newly created clone', name, vid)
  return Exit.ok
}

/**
 * Gives the clone objects of its own: copies of the source's, and empty ones for the rest with
 * -P.
 */
async function fillClone(context: Context, source: OpenedVdi, vid: Vid): Promise<void> {
  const jobs: ObjectJob[] = []
  const slots = await loadSlots(context.sheep, source)
  slots.forEach((slot, index) => {
    if (slot !== 0) jobs.push({ index, source: dataOid(asVid(slot), index) })
    else if (context.options.prealloc) jobs.push({ index })
  })
  await makeObjects(context, await reopen(context, vid), jobs)
}
