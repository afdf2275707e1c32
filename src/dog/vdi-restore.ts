/**
 * `dog vdi restore`: a snapshot and what a backup adds to it become a new snapshot. The working VDI has to make room for it
 * meanwhile, as in 1.0. Unlike there the stream is seen to its end and judged before anything is touched, and what the
 * working VDI had since its last snapshot is kept as one.
 */

import { LIMITS } from '../base/limits.js'
import type { Vid } from '../model/oid.js'
import type { ImageFile } from '../world/images.js'
import {
  decodeRecordHead,
  isStreamHead,
  RECORD_HEAD_BYTES,
  type RecordHead,
  STREAM_HEAD_BYTES,
} from './backup-stream.js'
import { InFlight } from './bounded.js'
import type { Context, Subcommand } from './command.js'
import { errnoText } from './errno.js'
import { Exit, Failure, failed, misused } from './failure.js'
import { type OpenedVdi, openVdi, redundancyOf, refuseHyper } from './image.js'
import { vdiOption as option, WORKING } from './options.js'
import { PIECE_BYTES_MAX } from './pieces.js'
import { makeVdi, reopen } from './vdi-create.js'
import { deleteVdi, exists } from './vdi-delete.js'
import { ownsObjects, succeed } from './vdi-snapshot.js'
import { VdiWriter } from './vdi-writer.js'

export const restore: Subcommand = {
  name: 'restore',
  summary: 'restore snapshot images from a backup',
  options: [
    ...[option.snapshot, option.address, option.port, option.help, option.time],
    ...[option.batch, option.interval],
  ],
  synopsis: '<vdiname>',
  needsOperand: true,
  run: runRestore,
}

async function runRestore(context: Context): Promise<number> {
  const { operands, options, sheep, io } = context
  const name = operands[0] ?? ''
  const { snapshot } = options
  if (snapshot === undefined) {
    throw misused(
      'We can restore a backup file only to snapshots',
      "Please specify the '-s' option",
    )
  }
  if (io.stdinIsTTY) throw misused('stdin must be pipe')
  const base = await openVdi(sheep, name, snapshot).catch((error: unknown) => {
    if (!(error instanceof Failure)) throw error
    const { snapId, tag } = snapshot
    throw failed(...error.lines, `Snapshot ID ${snapId} or tag ${tag} doesn't exist`)
  })
  refuseHyper(name, base.header)
  const working = await openVdi(sheep, name, WORKING)
  const scratch = await io.images.scratch()
  try {
    const path = `${scratch.path}/backup`
    await spool(context, path)
    const stream = await io.images.open(path)
    try {
      await replace(context, { name, base, working, stream, records: await judge(stream, base) })
    } finally {
      await stream.close()
    }
  } finally {
    await scratch.remove()
  }
  return Exit.ok
}

async function spool({ io }: Context, path: string): Promise<void> {
  const file = await io.images.create(path, { replace: false })
  let length = 0
  try {
    for await (const chunk of io.stdin) {
      await file.write(length, chunk)
      length += chunk.length
    }
    await file.commit(length)
  } catch (error) {
    await file.discard()
    throw new Failure(Exit.system, [`Failed to keep the backup: ${errnoText(error)}`])
  }
}

interface FoundRecord extends RecordHead {
  /** Of its bytes, in the stream. */
  readonly at: number
}

/** All records, each of which could be of the volume. Throws the failure, in 1.0's words. */
async function judge(stream: ImageFile, base: OpenedVdi): Promise<FoundRecord[]> {
  const corrupted = failed('The backup file is corrupted')
  const cut = failed('failed to read backup data')
  const { sizeBytes } = stream
  if (sizeBytes < STREAM_HEAD_BYTES) throw cut
  if (!isStreamHead(await stream.read(0, STREAM_HEAD_BYTES))) throw corrupted
  const objectBytes = 2 ** base.header.blockSizeShift
  const records: FoundRecord[] = []
  for (let at = STREAM_HEAD_BYTES; ; ) {
    if (at + RECORD_HEAD_BYTES > sizeBytes) throw cut
    const head = recordHead(await stream.read(at, RECORD_HEAD_BYTES), corrupted)
    at += RECORD_HEAD_BYTES
    if (head === undefined) return records
    const { index, offset, length } = head
    const fits = index < LIMITS.objectsPerVdiMax && offset + length <= objectBytes
    // Each object has one record: more than there can be objects is no backup.
    if (!fits || length === 0 || records.length === LIMITS.objectsPerVdiMax) throw corrupted
    if (at + length > sizeBytes) throw cut
    records.push({ ...head, at })
    at += length
  }
}

function recordHead(bytes: Buffer, corrupted: Failure): RecordHead | undefined {
  try {
    return decodeRecordHead(bytes)
  } catch (error) {
    if (error instanceof RangeError) throw corrupted
    throw error
  }
}

interface Restoring {
  readonly name: string
  readonly base: OpenedVdi
  readonly working: OpenedVdi
  readonly stream: ImageFile
  readonly records: readonly FoundRecord[]
}

async function replace(context: Context, job: Restoring): Promise<void> {
  const { name, working } = job
  const parent = await kept(context, name, working)
  await deleteVdi(context, name, WORKING)
  try {
    await build(context, job)
  } catch (error) {
    await giveBack(context, job, parent).catch((trouble: unknown) => {
      if (!(trouble instanceof Failure)) throw trouble
      for (const line of trouble.lines) context.out.error(line)
      context.out.error('failed to resume the current vdi')
    })
    throw error
  }
  await giveBack(context, job, parent)
}

/** What the working VDI is made from again: what it has of its own becomes a snapshot first. */
async function kept(context: Context, name: string, working: OpenedVdi): Promise<Vid> {
  if (!(await ownsObjects(context, working))) return working.header.parent
  await succeed(context, name, '', working)
  return working.vid
}

/** The new snapshot, and for now a working VDI on top of it. */
async function build(context: Context, job: Restoring): Promise<void> {
  const { name, base, records, stream } = job
  const { header } = base
  const objectBytes = 2 ** header.blockSizeShift
  const needed = records.map(({ index, offset, length }) => index * objectBytes + offset + length)
  // The volume may have grown before the backup was made; the stream does not say to what.
  const sizeBytes = needed.reduce((most, end) => Math.max(most, end), header.sizeBytes)
  const vid = await makeVdi(context, {
    ...{ name, sizeBytes, base: base.vid, blockSizeShift: header.blockSizeShift },
    ...redundancyOf(header),
  })
  const vdi = await reopen(context, vid)
  const writer = await VdiWriter.open(context, name, vdi, false)
  const inFlight = new InFlight()
  try {
    for (const { index, offset, length, at } of records) {
      for (let from = 0; from < length; from += PIECE_BYTES_MAX) {
        const data = await stream.read(at + from, Math.min(PIECE_BYTES_MAX, length - from))
        await inFlight.start(() => writer.write(index, offset + from, data))
      }
    }
  } finally {
    await inFlight.finish().catch(() => undefined)
  }
  await inFlight.finish()
  await succeed(context, name, '', await reopen(context, vid))
}

/** The working VDI stands where it stood; whatever has its place now goes. */
async function giveBack(
  context: Context,
  { name, working }: Restoring,
  parent: Vid,
): Promise<void> {
  const { header } = working
  if (await exists(context, name)) await deleteVdi(context, name, WORKING)
  await makeVdi(context, {
    ...{ name, sizeBytes: header.sizeBytes, base: parent, blockSizeShift: header.blockSizeShift },
    ...redundancyOf(header),
  })
}
