/**
 * Makes many objects of a fresh VDI and then its slots name them: preallocation and independent
 * copies.
 */
import { noBytes } from '../base/bytes.js'
import { dataOid, inodeOid, type Oid } from '../model/oid.js'
import { InFlight } from './bounded.js'
import type { Context } from './command.js'
import { Exit, Failure } from './failure.js'
import { type OpenedVdi, redundancyOf, sayObjectFailure, writeSlots } from './image.js'
import { Progress } from './progress.js'

/** Objects whose slots are written together. */
const BATCH_OBJECTS = 64

export interface ObjectJob {
  readonly index: number
  /** The object starts as a copy of this one instead of zeros. */
  readonly source?: Oid
}

/**
 * An object exists before a slot names it, so a run cut short leaves a VDI that is readable
 * everywhere. Throws a Failure; which object it was is printed before.
 */
export async function makeObjects(
  context: Pick<Context, 'out' | 'io' | 'sheep'>,
  vdi: OpenedVdi,
  jobs: readonly ObjectJob[],
): Promise<void> {
  const objectBytes = 2 ** vdi.header.blockSizeShift
  const bytesOf = (job: ObjectJob): number =>
    Math.min(objectBytes, vdi.header.sizeBytes - job.index * objectBytes)
  const total = jobs.reduce((sum, job) => sum + bytesOf(job), 0)
  const progress = new Progress(context.out, context.io.columns, total)
  for (let at = 0; at < jobs.length; at += BATCH_OBJECTS) {
    const batch = jobs.slice(at, at + BATCH_OBJECTS)
    const inFlight = new InFlight()
    for (const job of batch) {
      await inFlight.start(async () => {
        await makeObject(context, vdi, job)
        progress.add(bytesOf(job))
      })
    }
    await inFlight.finish()
    await nameObjects(context, vdi, batch)
  }
}

async function makeObject(
  context: Pick<Context, 'out' | 'sheep'>,
  vdi: OpenedVdi,
  job: ObjectJob,
): Promise<void> {
  const oid = dataOid(vdi.vid, job.index)
  try {
    await context.sheep.createObject({
      oid,
      offset: 0,
      data: noBytes(),
      redundancy: redundancyOf(vdi.header),
      cowOid: job.source,
    })
  } catch (error) {
    sayObjectFailure(context.out, 'write', oid, error)
    throw new Failure(Exit.failed, [])
  }
}

async function nameObjects(
  context: Pick<Context, 'out' | 'sheep'>,
  vdi: OpenedVdi,
  batch: readonly ObjectJob[],
): Promise<void> {
  for (const { first, count } of runsOf(batch.map((job) => job.index))) {
    try {
      await writeSlots(context.sheep, vdi, first, Array<number>(count).fill(vdi.vid))
    } catch (error) {
      sayObjectFailure(context.out, 'write', inodeOid(vdi.vid), error)
      throw new Failure(Exit.failed, [])
    }
  }
}

/** Ascending indexes as runs of neighbours. */
export function runsOf(indexes: readonly number[]): { first: number; count: number }[] {
  const runs: { first: number; count: number }[] = []
  for (const index of indexes) {
    const last = runs.at(-1)
    if (last !== undefined && last.first + last.count === index) last.count++
    else runs.push({ first: index, count: 1 })
  }
  return runs
}
