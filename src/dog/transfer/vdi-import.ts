/** `dog vdi import`: a file as a new VDI, or in place of what one holds. Nothing half done stays behind unsaid. */
import { Code, SheepError } from '../../base/codes.js'
import { LIMITS } from '../../base/limits.js'
import { SIZE_OFFSET } from '../../model/inode.js'
import { inodeOid } from '../../model/oid.js'
import type { RemoteVolumes } from '../../remote/remote-volumes.js'
import type { Volume } from '../../volume/volume.js'
import type { Context, Subcommand } from '../command.js'
import { Exit, Failure, failed, misused } from '../failure.js'
import { hasCode, type OpenedVdi, openFailure, openVdi, redundancyOf } from '../image.js'
import { vdiOption as option, WORKING } from '../options.js'
import { sizeText } from '../sizes.js'
import { checkPlainSize, makeVdi, newName, newShift } from '../vdi-create.js'
import { checkStop } from './copy.js'
import { interruptible } from './interrupt.js'
import { type Original, openOriginal } from './originals.js'
import { openLocked, operate, VdiSource, volumesOf } from './volumes.js'

const ZERO_BYTES_AT_ONCE = 2 ** 30

export const importVdi: Subcommand = {
  name: 'import',
  summary: 'make an image from a file',
  options: [
    ...[option.format, option.replace, option.verify, option.copies, option.shift, option.hyper],
    ...[option.address, option.port, option.help, option.time, option.json],
  ],
  synopsis: '<file|-> <vdiname>',
  needsOperand: true,
  run: runImport,
}

async function runImport(context: Context): Promise<number> {
  const { operands, options, io } = context
  const [file = '', named] = operands
  if (named === undefined) throw misused('Please specify the name of the VDI')
  const name = newName(named)
  if (options.hyper && options.block_size_shift !== undefined) {
    throw failed("Don't specify both -y and -z options, please")
  }
  await interruptible(io, async (stop) => {
    const original = await openOriginal(context, file, stop)
    try {
      await bring({ context, name, original, stop })
    } finally {
      await original.close()
    }
  })
  return Exit.ok
}

interface Import {
  readonly context: Context
  readonly name: string
  readonly original: Original
  readonly stop: AbortSignal
}

async function bring(job: Import): Promise<void> {
  const { context, name, original } = job
  const { options, out } = context
  const target = await targetOf(job)
  const volumes = await volumesOf(context)
  let dataBytes: number | undefined
  let vdi = target.vdi
  try {
    dataBytes = await fill(job, target, volumes)
    if (target.isNew) vdi = await resized(job, vdi)
    if (options.verify) await original.compare(await VdiSource.open(context, vdi))
    checkStop(job.stop)
  } catch (error) {
    volumes.end()
    throw await cleaned(job, target, error)
  }
  volumes.end()
  const { sizeBytes } = vdi.header
  const verified = options.verify ?? false
  if (options.json) out.json({ name, sizeBytes, dataBytes, verified })
  else {
    const data = dataBytes === undefined ? '' : `, ${sizeText(dataBytes)} of it data`
    out.line(`${name} is there: ${sizeText(sizeBytes)}${data}`)
    if (verified) out.line('Verified: both are the same')
  }
}

interface Target {
  readonly vdi: OpenedVdi
  /** Made by this run, and taken away when it fails. */
  readonly isNew: boolean
}

/** A new VDI unless there is one whose content may be replaced. */
async function targetOf({ context, name, original }: Import): Promise<Target> {
  const { options, sheep } = context
  const there = await workingVdi(context, name)
  if (there === undefined) {
    const blockSizeShift = await newShift(context, name)
    const sizeBytes = original.sizeBytes ?? 2 ** blockSizeShift * LIMITS.objectsPerVdiMax
    if (sizeBytes > LIMITS.volumeBytesMax) {
      const most = LIMITS.volumeBytesMax
      throw misused(`VDI size is too large: no more than ${most} bytes can be addressed`)
    }
    if (!options.hyper) checkPlainSize(sizeBytes, blockSizeShift)
    const redundancy = options.copies ?? { copies: 0, policy: 0 }
    const hyper = options.hyper ?? false
    await makeVdi(context, { name, sizeBytes, blockSizeShift, hyper, ...redundancy })
    return { vdi: await openVdi(sheep, name, WORKING), isNew: true }
  }
  if (!options.force) throw failed(`VDI ${name} exists already; --force replaces its content`)
  const { sizeBytes } = there.header
  if (original.sizeBytes !== undefined && original.sizeBytes > sizeBytes) {
    throw failed(
      `VDI ${name} has ${sizeBytes} bytes, and ${original.sizeBytes} are needed`,
      `'dog vdi resize ${name} ${original.sizeBytes}' makes it large enough`,
    )
  }
  return { vdi: there, isNew: false }
}

async function workingVdi({ sheep }: Context, name: string): Promise<OpenedVdi | undefined> {
  try {
    await sheep.lookup(name, WORKING)
  } catch (error) {
    if (hasCode(error, Code.NO_VDI, Code.NO_TAG)) return undefined
    throw openFailure(name, WORKING, error)
  }
  return await openVdi(sheep, name, WORKING)
}

/** Everything is durable on every copy when it resolves. */
async function fill(
  { name, original, stop }: Import,
  target: Target,
  volumes: RemoteVolumes,
): Promise<number | undefined> {
  const volume = await openLocked(volumes, name)
  try {
    if (!target.isNew) await empty(volume, stop)
    const dataBytes = await original.copyTo(volume)
    checkStop(stop)
    await operate((done) => volume.flush(done))
    await volume.close()
    return dataBytes
  } catch (error) {
    // Its lock goes first: a locked VDI cannot be removed. What it says besides is no news.
    await volume.close().catch(() => undefined)
    throw error
  }
}

async function empty(volume: Volume, stop: AbortSignal): Promise<void> {
  const options = { fua: false, mayUnmap: true, fastOnly: false }
  for (let offset = 0; offset < volume.sizeBytes; offset += ZERO_BYTES_AT_ONCE) {
    checkStop(stop)
    const length = Math.min(ZERO_BYTES_AT_ONCE, volume.sizeBytes - offset)
    await operate((done) => volume.zero({ offset, length }, options, done))
  }
}

/** An input of unknown length was given room for any: now the VDI gets the size it had. */
async function resized({ context, original }: Import, vdi: OpenedVdi): Promise<OpenedVdi> {
  const sizeBytes = original.sizeBytes ?? vdi.header.sizeBytes
  if (sizeBytes === vdi.header.sizeBytes) return vdi
  const data = Buffer.alloc(8)
  data.writeBigUInt64LE(BigInt(sizeBytes))
  const redundancy = redundancyOf(vdi.header)
  await context.sheep.writeObject({ oid: inodeOid(vdi.vid), offset: SIZE_OFFSET, data, redundancy })
  return { vid: vdi.vid, header: { ...vdi.header, sizeBytes } }
}

/** The failure, and what has become of the VDI. */
async function cleaned(job: Import, target: Target, error: unknown): Promise<unknown> {
  const { context, name } = job
  const status = error instanceof Failure ? error.status : Exit.failed
  const lines = linesOf(name, error)
  if (lines === undefined) return error
  if (!target.isNew) {
    return new Failure(status, [...lines, `VDI ${name} is incomplete: its old content is gone`])
  }
  try {
    await context.sheep.deleteVdi(name, WORKING)
    return new Failure(status, [...lines, `The unfinished VDI ${name} was removed`])
  } catch (trouble) {
    const why = trouble instanceof Error ? trouble.message : String(trouble)
    const advice = `VDI ${name} is incomplete and could not be removed (${why})`
    return new Failure(status, [...lines, advice, `Remove it with 'dog vdi delete ${name}'`])
  }
}

/** Undefined: none of what can happen, but a fault of ours. */
function linesOf(name: string, error: unknown): readonly string[] | undefined {
  if (error instanceof Failure) return error.lines
  if (error instanceof SheepError) return [`Failed to write VDI ${name}: ${error.message}`]
  return undefined
}
