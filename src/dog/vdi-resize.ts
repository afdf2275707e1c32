/** `dog vdi resize`. */
import { LIMITS } from '../base/limits.js'
import { inodeOid } from '../model/oid.js'
import type { Context, Subcommand } from './command.js'
import { Exit, Failure, misused } from './failure.js'
import { isHyper, openVdi, redundancyOf, sayObjectFailure } from './image.js'
import { vdiOption as option, WORKING } from './options.js'
import { parseSize } from './sizes.js'

/** Where an inode keeps the size (objects spec, section 4.1). */
const SIZE_OFFSET = 536

export const resize: Subcommand = {
  name: 'resize',
  summary: 'resize an image',
  options: [option.address, option.port, option.help, option.time],
  synopsis: '<vdiname> <new size>',
  needsOperand: true,
  run: runResize,
}

async function runResize({ operands, out, sheep }: Context): Promise<number> {
  const [name = '', size] = operands
  if (size === undefined) throw misused('Please specify the new size for the VDI')
  const sizeBytes = parseSize(size)
  const { header, vid } = await openVdi(sheep, name, WORKING)
  const hyper = isHyper(header)
  const slotted = 2 ** header.blockSizeShift * LIMITS.objectsPerVdiMax
  const bytesMax = Math.min(hyper ? LIMITS.volumeBytesMax : slotted, LIMITS.volumeBytesMax)
  if (sizeBytes > bytesMax) {
    const stop = hyper ? '' : '.'
    throw misused(`New VDI size is too large${stop} This volume's max size is ${bytesMax}`)
  }
  if (sizeBytes < header.sizeBytes) throw misused('Shrinking VDIs is not implemented')
  const data = Buffer.alloc(8)
  data.writeBigUInt64LE(BigInt(sizeBytes))
  const oid = inodeOid(vid)
  try {
    await sheep.writeObject({ oid, offset: SIZE_OFFSET, data, redundancy: redundancyOf(header) })
  } catch (error) {
    sayObjectFailure(out, 'write', oid, error)
    throw new Failure(Exit.failed, [])
  }
  return Exit.ok
}
