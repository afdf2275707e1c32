/** `dog vdi export`: a VDI or a snapshot as a file, with its holes. */
import { SheepError } from '../../base/codes.js'
import type { NewImage } from '../../world/images.js'
import { inOrder } from '../bounded.js'
import type { Context, Subcommand } from '../command.js'
import { errnoName, errnoText } from '../errno.js'
import { Exit, Failure, failed, misused } from '../failure.js'
import type { OpenedVdi } from '../image.js'
import { isSnapshot } from '../listing.js'
import { openNamed } from '../named.js'
import { vdiOption as option } from '../options.js'
import { piecesOf } from '../pieces.js'
import { Progress } from '../progress.js'
import { sizeText } from '../sizes.js'
import { checkStop, copyData, firstDifference, type Source } from './copy.js'
import { interruptible } from './interrupt.js'
import { fileName, overNbd, qemuImgFindsSame, runQemuImg } from './qemu-img.js'
import { openLocked, sourceVolume, VdiSource, volumesOf } from './volumes.js'

/** A file system gives space in these. */
const GRAIN_BYTES = 4096

export const exportVdi: Subcommand = {
  name: 'export',
  summary: 'write an image to a file',
  options: [
    ...[option.snapshot, option.outputFormat, option.replace, option.verify],
    ...[option.address, option.port, option.help, option.time, option.json],
  ],
  synopsis: '<vdiname[@tag|@id]> <file|->',
  needsOperand: true,
  run: runExport,
}

async function runExport(context: Context): Promise<number> {
  const { operands, options, io } = context
  const [operand = '', file] = operands
  if (file === undefined || file === '') throw misused('Please specify the file, or - for stdout')
  checkStdout(context, file)
  const vdi = await openNamed(context, operand)
  const unlock = await keepStill(context, vdi)
  try {
    const source = await VdiSource.open(context, vdi)
    await interruptible(io, async (stop) => {
      if (file === '-') await toStdout(context, source, vdi, stop)
      else tell(context, vdi, await toFile({ context, vdi, source, file, stop }))
    })
  } catch (error) {
    if (error instanceof SheepError) throw failed('Failed to read VDI')
    throw error
  } finally {
    unlock()
  }
  if (options.verify && !options.json) context.out.line('Verified: both are the same')
  return Exit.ok
}

function checkStdout({ options, out }: Context, file: string): void {
  if (file !== '-') return
  if ((options.outputFormat ?? 'raw') !== 'raw') throw misused('Only raw can go to stdout')
  if (options.verify) throw misused('What went to stdout cannot be compared')
  if (options.json) throw misused('stdout is for the disk: --json needs a file')
  if (out.isTTY) throw misused('stdout is a terminal: name a file or a pipe')
}

/** A disk that is being written would come out as it never was. Snapshots do not change. */
async function keepStill(context: Context, { header }: OpenedVdi): Promise<() => void> {
  if (isSnapshot(header)) return () => undefined
  const volumes = await volumesOf(context)
  try {
    await openLocked(volumes, header.name)
    return () => volumes.end()
  } catch (error) {
    volumes.end()
    if (!(error instanceof Failure)) throw error
    throw failed(...error.lines, 'A disk in use can be exported as a snapshot of it')
  }
}

interface Export {
  readonly context: Context
  readonly vdi: OpenedVdi
  readonly source: VdiSource
  readonly file: string
  readonly stop: AbortSignal
}

interface Outcome {
  readonly file: string
  /** Undefined where qemu-img did it. */
  readonly dataBytes: number | undefined
}

async function toFile(job: Export): Promise<Outcome> {
  const { context, file } = job
  const replace = context.options.force ?? false
  const image = await context.io.images.create(file, { replace }).catch((error: unknown) => {
    if (errnoName(error) !== 'EEXIST') throw localFailure(file, error)
    throw failed(`${file} exists already; --force replaces it`)
  })
  try {
    const dataBytes = await fill(job, image)
    checkStop(job.stop)
    return { file, dataBytes }
  } catch (error) {
    await image.discard()
    if (!image.isFresh) context.out.error(`${file} is incomplete`)
    if (error instanceof Failure || error instanceof SheepError) throw error
    throw localFailure(file, error)
  }
}

/** Whole and on stable storage when it resolves. */
async function fill(job: Export, image: NewImage): Promise<number | undefined> {
  const { context, source, file } = job
  const { options } = context
  if (options.outputFormat === 'qcow2') {
    if (!image.isFresh) throw failed(`${file} is no ordinary file: qcow2 needs one`)
    await convert(job, image)
    await image.commit()
    return undefined
  }
  const { sizeBytes } = source
  const progress = new Progress(context.out, context.io.columns, sizeBytes)
  const what = image.isFresh ? source : withoutHoles(source)
  const written = await copyData(what, {
    ...{ grain: image.isFresh ? GRAIN_BYTES : 0, stop: job.stop },
    write: (offset, data) => image.write(offset, data),
    progress: (bytes) => progress.add(bytes),
  })
  if (options.verify) await verify(job, image)
  await image.commit(sizeBytes)
  return written
}

async function convert({ context, vdi, source, stop }: Export, image: NewImage): Promise<void> {
  const volume = sourceVolume(vdi.header.name, source)
  const path = fileName(image.path)
  await overNbd(context, volume, async (uri) => {
    await runQemuImg(context, ['convert', '-f', 'raw', '-O', 'qcow2', uri, path], stop)
    if (!context.options.verify) return
    const both = ['-f', 'raw', '-F', 'qcow2', uri, path]
    if (!(await qemuImgFindsSame(context, both, stop))) throw failed('The file differs')
  })
}

async function verify({ context, source, stop }: Export, image: NewImage): Promise<void> {
  const file = await context.io.images.open(image.path)
  try {
    const { sizeBytes } = source
    const written: Source = {
      sizeBytes: Math.min(file.sizeBytes, sizeBytes),
      nextData: (from) => file.nextData(from),
      read: (offset, length) => file.read(offset, length),
    }
    const at = await firstDifference(source, written, stop)
    if (at !== undefined) throw failed(`The file differs, within 4 MiB from byte ${at} on`)
  } finally {
    await file.close()
  }
}

function withoutHoles(source: Source): Source {
  const { sizeBytes } = source
  return {
    sizeBytes,
    nextData: (from) => (from < sizeBytes ? { start: from, end: sizeBytes } : undefined),
    read: (offset, length) => source.read(offset, length),
  }
}

/** Holes as zeros; at the reader's pace. */
async function toStdout(
  { out }: Context,
  source: VdiSource,
  { header }: OpenedVdi,
  stop: AbortSignal,
): Promise<void> {
  const { blockSizeShift } = header
  const objectBytes = 2 ** blockSizeShift
  const pieces = piecesOf(0, source.sizeBytes, blockSizeShift)
  const read = inOrder(pieces, ({ index, offset, length }) =>
    source.read(index * objectBytes + offset, length),
  )
  for await (const bytes of read) {
    checkStop(stop)
    await out.bytes(bytes)
  }
}

function tell({ options, out }: Context, vdi: OpenedVdi, { file, dataBytes }: Outcome): void {
  const { name, sizeBytes } = vdi.header
  const format = options.outputFormat ?? 'raw'
  const verified = options.verify ?? false
  if (options.json) out.json({ name, file, format, sizeBytes, dataBytes, verified })
  else {
    const data = dataBytes === undefined ? '' : `, ${sizeText(dataBytes)} of it data`
    out.line(`${name} is in ${file}: ${sizeText(sizeBytes)}${data}`)
  }
}

export function localFailure(file: string, error: unknown): Failure {
  return new Failure(Exit.system, [`${file}: ${errnoText(error)}`])
}
