/** `dog vdi delete` and `rollback`. */
import { Code } from '../base/codes.js'
import { inodeOid } from '../model/oid.js'
import { reasonOf } from './client.js'
import type { Context, Subcommand } from './command.js'
import { Exit, Failure, failed, misused } from './failure.js'
import {
  hasCode,
  isHyper,
  type OpenedVdi,
  openFailure,
  openVdi,
  redundancyOf,
  sayObjectFailure,
  scanSlots,
  writeSlots,
} from './image.js'
import { vdiOption as option, type SnapshotSelector, WORKING } from './options.js'
import { confirm } from './prompt.js'
import { makeVdi, sayVid } from './vdi-create.js'

const BATCH_DEFAULT = 128

const ROLLBACK_QUESTION =
  'This operation discards any changes made since the previous\n' +
  'snapshot was taken.  Continue? [yes/no]: '

export const remove: Subcommand = {
  name: 'delete',
  summary: 'delete an image',
  options: [
    option.snapshot,
    option.address,
    option.port,
    option.help,
    option.time,
    option.batch,
    option.interval,
    option.maxReclaim,
  ],
  synopsis: '<vdiname>',
  needsOperand: true,
  run: runDelete,
}

export const rollback: Subcommand = {
  name: 'rollback',
  summary: 'rollback to a snapshot',
  options: [
    option.snapshot,
    option.address,
    option.port,
    option.help,
    option.force,
    option.raw,
    option.verbose,
    option.time,
    option.batch,
    option.interval,
    option.json,
  ],
  synopsis: '<vdiname>',
  needsOperand: true,
  run: runRollback,
}

async function runDelete(context: Context): Promise<number> {
  await deleteVdi(context, context.operands[0] ?? '', context.options.snapshot ?? WORKING)
  return Exit.ok
}

/**
 * Our sheep empties what it deletes. With -B, -I or -m the slots are given up from here first, as
 * 1.0 does it: in steps, at the user's pace. 1.0 exits 0 whatever happens; we fail when nothing
 * was deleted.
 */
export async function deleteVdi(
  context: Context,
  name: string,
  which: SnapshotSelector,
): Promise<void> {
  const { nrBatchedReclamation, reclamationInterval, maxReclaim } = context.options
  const inSteps = [nrBatchedReclamation, reclamationInterval, maxReclaim].some(
    (value) => value !== undefined,
  )
  if (inSteps) {
    const vdi = await openVdi(context.sheep, name, which)
    if (!isHyper(vdi.header)) await reclaim(context, vdi)
    if (maxReclaim !== undefined) return
  }
  try {
    await context.sheep.deleteVdi(name, which)
  } catch (error) {
    if (hasCode(error, Code.NO_VDI, Code.NO_TAG, Code.EIO)) throw openFailure(name, which, error)
    throw failed(`Failed to delete ${name}: ${reasonOf(error)}`)
  }
}

/** Zeroes runs of slots, each with at most so many objects, waiting in between. */
async function reclaim(context: Context, vdi: OpenedVdi): Promise<void> {
  const { options, sheep, out } = context
  const batch = options.nrBatchedReclamation ?? BATCH_DEFAULT
  const plan = await planRuns(context, vdi, batch, options.maxReclaim ?? Number.POSITIVE_INFINITY)
  for (const [i, run] of plan.entries()) {
    if (i > 0 && options.reclamationInterval !== undefined) {
      await sleep(context, options.reclamationInterval)
    }
    try {
      await writeSlots(sheep, vdi, run.first, Array<number>(run.count).fill(0))
    } catch (error) {
      sayObjectFailure(out, 'write', inodeOid(vdi.vid), error)
      throw new Failure(Exit.failed, [])
    }
  }
}

interface SlotRun {
  readonly first: number
  /** Slots, holes between the first and the last object among them. */
  readonly count: number
}

async function planRuns(
  context: Context,
  vdi: OpenedVdi,
  batch: number,
  objectsMax: number,
): Promise<SlotRun[]> {
  const indexes: number[] = []
  try {
    await scanSlots(context.sheep, vdi, (first, vids) => {
      vids.forEach((slot, i) => {
        if (slot !== 0 && indexes.length < objectsMax) indexes.push(first + i)
      })
    })
  } catch (error) {
    sayObjectFailure(context.out, 'read', inodeOid(vdi.vid), error)
    throw new Failure(Exit.failed, [])
  }
  const runs: SlotRun[] = []
  for (let at = 0; at < indexes.length; at += batch) {
    const last = indexes[Math.min(at + batch, indexes.length) - 1]!
    runs.push({ first: indexes[at]!, count: last - indexes[at]! + 1 })
  }
  return runs
}

function sleep(context: Context, seconds: number): Promise<void> {
  return new Promise((resolve) => {
    context.world.clock.after(seconds * 1000, resolve)
  })
}

async function runRollback(context: Context): Promise<number> {
  const { options, operands, sheep } = context
  const name = operands[0] ?? ''
  if (options.snapshot === undefined) throw misused("Please specify the '-s' option")
  const { header, vid: base } = await openVdi(sheep, name, options.snapshot)
  if (!options.force) await confirm(context, ROLLBACK_QUESTION)
  if (await exists(context, name)) await deleteVdi(context, name, WORKING)
  const vid = await makeVdi(context, {
    name,
    sizeBytes: header.sizeBytes,
    base,
    blockSizeShift: header.blockSizeShift,
    hyper: isHyper(header),
    ...redundancyOf(header),
  })
  sayVid(context, 'New VDI ID of rollbacked VDI', name, vid)
  return Exit.ok
}

export async function exists(context: Context, name: string): Promise<boolean> {
  try {
    await context.sheep.lookup(name, WORKING)
    return true
  } catch (error) {
    if (hasCode(error, Code.NO_VDI, Code.NO_TAG)) return false
    throw openFailure(name, WORKING, error)
  }
}
