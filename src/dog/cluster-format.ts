/** `dog cluster format`. */
import { cString } from '../base/bytes.js'
import { Code } from '../base/codes.js'
import { sdTime } from '../model/inode.js'
import type { SdNode } from '../model/node.js'
import { ClusterFlag, Flag, Op } from '../wire/sheepdog/opcodes.js'
import type { ClusterInfo } from '../wire/sheepdog/records.js'
import { clusterRequest, plainRequest } from '../wire/sheepdog/requests.js'
import { reasonOf } from './client.js'
import type { Context, Subcommand } from './command.js'
import { laggards } from './everywhere.js'
import { Exit, Failure, failed } from './failure.js'
import { hasCode } from './image.js'
import { clusterOption as option } from './options.js'
import { confirm, NOT_EMPTY_QUESTION } from './prompt.js'

const DEFAULT_STORE = 'plain'
/** Room for the names of the stores a sheep knows. */
const STORE_LIST_BYTES = 512

export const format: Subcommand = {
  name: 'format',
  summary: 'create a Sheepdog store',
  options: [
    option.store,
    option.copies,
    option.lock,
    option.strict,
    option.address,
    option.port,
    option.help,
    option.shift,
    option.time,
    option.fixedVnodes,
    option.recycleVid,
    option.force,
    option.avoidDiskfull,
  ],
  synopsis: '',
  run: runFormat,
}

async function runFormat(context: Context): Promise<number> {
  const { options, out, sheep, world } = context
  const nodes = await sheep.nodes()
  await checkVnodesStrategy(context, nodes)
  const redundancy = options.copies ?? { copies: 0, policy: 0 }
  const zones = new Set(nodes.filter((one) => one.vnodes > 0).map((one) => one.zone)).size
  if (redundancy.copies > zones) {
    const { copies } = redundancy
    const numbers = `Number of copies (${copies}) is larger than number of zones (${zones}).`
    await confirm(context, `${numbers}\nAre you sure you want to continue? [yes/no]: `)
  }
  if (!options.force && (await holdsVolumes(context))) await confirm(context, NOT_EMPTY_QUESTION)
  const store = options.store ?? DEFAULT_STORE
  out.line(`using backend ${store} store`)
  const payload = cString(store, Buffer.byteLength(store) + 1)
  const ctime = sdTime(world.clock.now())
  const head = clusterRequest({
    opcode: Op.MAKE_FS,
    flags: Flag.WRITE,
    dataLength: payload.length,
    ctime,
    ...redundancy,
    clusterFlags: clusterFlags(context),
    blockSizeShift: options.block_size_shift ?? 0,
  })
  try {
    await sheep.ask(head, payload)
  } catch (error) {
    out.error(`Format failed: ${reasonOf(error)}`)
    if (hasCode(error, Code.NO_STORE)) await sayStores(context)
    throw new Failure(Exit.system, [])
  }
  const isFormatted = (info: ClusterInfo): boolean => info.ctime === ctime && info.status === 'ok'
  const missing = await laggards(context, nodes, isFormatted)
  if (missing.length === 0) return Exit.ok
  throw new Failure(Exit.system, ['Format failed on some nodes:', ...missing])
}

function clusterFlags({ options }: Context): number {
  const chosen: readonly (readonly [number, boolean | undefined])[] = [
    [ClusterFlag.STRICT, options.strict],
    [ClusterFlag.AUTO_VNODES, !options.fixedvnodes],
    [ClusterFlag.USE_LOCK, options.lock],
    [ClusterFlag.RECYCLE_VID, options.recyclevid],
    [ClusterFlag.AVOID_DISKFULL, options.avoidDiskfull],
  ]
  return chosen.reduce((flags, [flag, wanted]) => (wanted ? flags | flag : flags), 0)
}

/** `-V` and the way the sheep were started must agree, on every node. */
async function checkVnodesStrategy(context: Context, nodes: readonly SdNode[]): Promise<void> {
  for (const one of nodes) {
    const peer = context.sheep.peer(one)
    try {
      const automatic = ((await peer.clusterInfo()).flags & ClusterFlag.AUTO_VNODES) !== 0
      if (automatic && context.options.fixedvnodes) {
        throw failed(
          "Can not apply the option of '-V', because there are vnode strategy of sheep " +
            'is auto in the cluster',
        )
      }
      if (!automatic && !context.options.fixedvnodes) {
        throw failed(
          "Need to specify the option of '-V', because there are vnode strategy of sheep " +
            'is fixed in the cluster',
        )
      }
    } finally {
      await peer.close()
    }
  }
}

async function holdsVolumes({ sheep }: Context): Promise<boolean> {
  return (await sheep.vidBitmap(Op.READ_VDIS)).some((byte) => byte !== 0)
}

async function sayStores({ out, sheep }: Context): Promise<void> {
  const head = plainRequest({ opcode: Op.GET_STORE_LIST, dataLength: STORE_LIST_BYTES })
  const { body } = await sheep.ask(head)
  const end = body.indexOf(0)
  out.line('Available stores:')
  out.line('-'.repeat(39))
  out.line(body.toString('latin1', 0, end < 0 ? body.length : end))
}
