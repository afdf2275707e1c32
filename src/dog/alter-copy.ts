/** `dog vdi alter-copy` and `dog cluster alter-copy`: how many copies there are of a volume, or of new volumes. */
import { Code, codeText } from '../base/codes.js'
import { asVid, inodeOid } from '../model/oid.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { clusterRequest, vdiStateRequest } from '../wire/sheepdog/requests.js'
import { reasonOf } from './client.js'
import type { Context, Subcommand } from './command.js'
import { laggards } from './everywhere.js'
import { Exit, Failure, failed, misused } from './failure.js'
import { type OpenedVdi, openVdi, redundancyOf } from './image.js'
import { clusterOption, vdiOption, WORKING } from './options.js'
import { confirm } from './prompt.js'

const COPIES_DEFAULT = 3
/** Where an inode keeps the number of copies (objects spec, section 4.1). */
const COPIES_OFFSET = 554

export const alterVdi: Subcommand = {
  name: 'alter-copy',
  summary: "set the vdi's redundancy level",
  options: [
    vdiOption.copies,
    vdiOption.address,
    vdiOption.port,
    vdiOption.help,
    vdiOption.time,
    vdiOption.force,
  ],
  synopsis: '<vdiname>',
  needsOperand: true,
  run: runAlterVdi,
}

export const alterCluster: Subcommand = {
  name: 'alter-copy',
  summary: "set the cluster's redundancy level",
  options: [
    clusterOption.address,
    clusterOption.port,
    clusterOption.help,
    clusterOption.time,
    clusterOption.copies,
    clusterOption.force,
  ],
  synopsis: '',
  run: runAlterCluster,
}

async function runAlterVdi(context: Context): Promise<number> {
  const { operands, out, sheep, options } = context
  const [name = ''] = operands
  const copies = wantedCopies(context, "The vdi's")
  await confirmMany(context, copies)
  const opened = await openVdi(sheep, name, WORKING).catch((error: unknown) => {
    if (!(error instanceof Failure)) throw error
    throw failed(...error.lines, `Reading ${name}'s vdi object failure.`)
  })
  const { header } = opened
  if (header.policy !== 0) {
    throw failed(`${name}'s copy policy is erasure code, changing it is not supported yet.`)
  }
  if (header.copies === copies) {
    throw failed(`${name}'s redundancy level is already set to ${copies}, nothing changed.`)
  }
  if (header.parent !== 0) {
    throw failed(
      'Only standalone vdi supports changing redundancy level.',
      `Please clone ${name} with -n (--no-share) option first.`,
    )
  }
  if (!options.force)
    await confirm(context, question("VDI's", 'the VDI itself only and trigger recovery.'))
  await alterVolume(context, opened, copies)
  out.error(`${name}'s redundancy level is set to ${copies}, the old one was ${header.copies}.`)
  return Exit.ok
}

/**
 * The cluster first, then the inode: after a crash in between the volume has what its inode says, and nothing is
 * lost by that. (1.0 writes the inode first: then nodes that restart in between disagree with the others.)
 */
async function alterVolume({ sheep }: Context, opened: OpenedVdi, copies: number): Promise<void> {
  const { vid, header } = opened
  const fields = { newVid: vid, oldVid: asVid(0), copies, setBitmap: false, policy: 0 }
  const { blockSizeShift } = header
  const request = vdiStateRequest({ opcode: Op.ALTER_VDI_COPY, ...fields, blockSizeShift })
  const { result } = await sheep.exchange(request)
  if (result !== Code.SUCCESS) {
    throw failed(`Response's result: ${codeText(result)}`, 'failed to execute request')
  }
  const data = Buffer.from([copies])
  const redundancy = redundancyOf({ ...header, copies })
  try {
    await sheep.writeObject({ oid: inodeOid(vid), offset: COPIES_OFFSET, data, redundancy })
  } catch (error) {
    throw failed(
      `The number of copies could not be written into the inode: ${reasonOf(error)}`,
      'Run the same command again.',
    )
  }
}

async function runAlterCluster(context: Context): Promise<number> {
  const { options, out, sheep } = context
  const copies = wantedCopies(context, "The cluster's")
  await confirmMany(context, copies)
  const before = await sheep.clusterDefault().catch((error: unknown) => {
    throw failed(`Response's result: ${reasonOf(error)}`)
  })
  if (before.policy !== 0) {
    throw failed("The cluster's copy policy is erasure code, changing it is not supported yet.")
  }
  if (before.copies === copies) {
    throw failed(`The cluster's redundancy level is already set to ${copies}, nothing changed.`)
  }
  if (!options.force) {
    await confirm(context, question("cluster's", 'all the VDIs to be created later.'))
  }
  const nodes = await sheep.nodes()
  const { result } = await sheep.exchange(clusterRequest({ opcode: Op.ALTER_CLUSTER_COPY, copies }))
  if (result !== Code.SUCCESS) {
    throw failed(`Response's result: ${codeText(result)}`, 'failed to execute request')
  }
  const missing = await laggards(context, nodes, (info) => info.copies === copies)
  if (missing.length > 0) throw failed('Some nodes did not follow:', ...missing)
  out.error(`The cluster's redundancy level is set to ${copies}, the old one was ${before.copies}.`)
  return Exit.ok
}

function wantedCopies({ options, out }: Context, whose: string): number {
  const { copies } = options
  if (copies === undefined) {
    out.line(`${whose} redundancy level is not specified, use ${COPIES_DEFAULT} as default.`)
    return COPIES_DEFAULT
  }
  if (copies.policy === 0) return copies.copies
  throw misused('Changing redundancy level of erasure coded vdi is not supported yet.')
}

async function confirmMany(context: Context, copies: number): Promise<void> {
  const nodes = (await context.sheep.nodes()).filter(({ vnodes }) => vnodes > 0)
  if (copies <= nodes.length || context.options.force) return
  const numbers = `Number of copies (${copies}) is larger than number of nodes (${nodes.length}).`
  await confirm(context, `${numbers}\nAre you sure you want to continue? [yes/no]: `)
}

function question(whose: string, effect: string): string {
  return [
    '    __',
    "   ()'`;",
    `   /\\|\`  Caution! Changing ${whose} redundancy level will affect`,
    `  /  |   ${effect}`,
    '(/_)_|_  Are you sure you want to continue? [yes/no]: ',
  ].join('\n')
}
