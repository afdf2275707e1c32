/** `dog vdi create`, and what clone and rollback share with it. */
import { LIMITS } from '../base/limits.js'
import { slotsOf } from '../model/inode.js'
import { type Vid, vidName } from '../model/oid.js'
import { type NewVdi, reasonOf } from './client.js'
import type { Context, Subcommand } from './command.js'
import { Exit, failed, misused } from './failure.js'
import { type OpenedVdi, readHeader } from './image.js'
import { makeObjects } from './objects.js'
import { vdiOption as option } from './options.js'
import { parseSize, sizeText } from './sizes.js'

/** 1.0's go up to 16 PiB; places beyond this are no whole numbers here. */
const HYPER_BYTES_MAX = LIMITS.volumeBytesMax
const HYPER_SHIFT = 22
const DEFAULT_SHIFT = 22

export const create: Subcommand = {
  name: 'create',
  summary: 'create an image',
  options: [
    option.prealloc,
    option.hyper,
    option.copies,
    option.address,
    option.port,
    option.help,
    option.raw,
    option.verbose,
    option.shift,
    option.time,
    option.json,
  ],
  synopsis: '<vdiname> <size>',
  needsOperand: true,
  run: runCreate,
}

async function runCreate(context: Context): Promise<number> {
  const { options, operands, sheep } = context
  if (options.hyper && options.block_size_shift !== undefined) {
    throw failed("Don't specify both -y and -z options, please")
  }
  const name = newName(operands[0])
  if (operands[1] === undefined) throw misused('Please specify the VDI size')
  const sizeBytes = parseSize(operands[1])
  if (sizeBytes > HYPER_BYTES_MAX) {
    throw misused(`VDI size is too large: no more than ${HYPER_BYTES_MAX} bytes can be addressed`)
  }
  if (options.hyper && options.prealloc) {
    throw failed('Preallocating a hyper volume is not supported')
  }
  await sheep.nodes()
  const blockSizeShift = await newShift(context, name)
  if (!options.hyper) checkPlainSize(sizeBytes, blockSizeShift)
  const redundancy = options.copies ?? { copies: 0, policy: 0 }
  const hyper = options.hyper ?? false
  const vid = await makeVdi(context, { name, sizeBytes, blockSizeShift, hyper, ...redundancy })
  if (options.prealloc) {
    const vdi = await reopen(context, vid)
    const count = slotsOf(sizeBytes, vdi.header.blockSizeShift)
    await makeObjects(
      context,
      vdi,
      Array.from({ length: count }, (_, index) => ({ index })),
    )
  }
  sayVid(context, 'VDI ID of newly created VDI', name, vid)
  return Exit.ok
}

/** 1.0 accepted the empty name and made a volume nobody could see. */
export function newName(name: string | undefined): string {
  if (name === undefined || name === '') throw misused('VDI name must not be empty')
  return name
}

/** Throws the failure when there would be more objects than slots. */
export function checkPlainSize(sizeBytes: number, blockSizeShift: number): void {
  const bytesMax = 2 ** blockSizeShift * LIMITS.objectsPerVdiMax
  if (sizeBytes <= bytesMax) return
  throw misused(
    `VDI size is larger than ${sizeText(bytesMax)} bytes, please use '-y' to create a ` +
      `hyper volume with size up to ${sizeText(HYPER_BYTES_MAX)} bytes or use '-z' to ` +
      'create larger object size volume',
  )
}

/** What objects of a new volume are to be, by its options or the cluster's default. */
export async function newShift(context: Context, name: string): Promise<number> {
  if (context.options.hyper) return HYPER_SHIFT
  if (context.options.block_size_shift !== undefined) return context.options.block_size_shift
  try {
    return (await context.sheep.clusterDefault()).blockSizeShift || DEFAULT_SHIFT
  } catch (error) {
    throw failed(`Failed to create VDI ${name}: ${reasonOf(error)}`)
  }
}

/** Throws the failure in 1.0's words. */
export async function makeVdi(context: Pick<Context, 'sheep'>, vdi: NewVdi): Promise<Vid> {
  try {
    return await context.sheep.newVdi(vdi)
  } catch (error) {
    throw failed(`Failed to create VDI ${vdi.name}: ${reasonOf(error)}`)
  }
}

export async function reopen(context: Pick<Context, 'sheep'>, vid: Vid): Promise<OpenedVdi> {
  try {
    return { vid, header: await readHeader(context.sheep, vid) }
  } catch (error) {
    throw failed(`Failed to read inode of VDI ${vidName(vid)}: ${reasonOf(error)}`)
  }
}

/** Scripts get the id with -v only, or as JSON. */
export function sayVid(
  { options, out }: Pick<Context, 'options' | 'out'>,
  what: string,
  name: string,
  vid: Vid,
): void {
  if (options.json) out.json({ name, vid: vidName(vid) })
  else if (options.verbose) out.line(options.raw ? vidName(vid) : `${what}: ${vidName(vid)}`)
}
