/** `dog node md`: the disks of nodes, and taking them in and out of the contacted one. */
import { Code, codeText } from '../base/codes.js'
import { nodeKey, type SdNode } from '../model/node.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { type DiskInfo, decodeMdInfo, MD_INFO_BYTES } from '../wire/sheepdog/records.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import { reasonOf, type Sheep } from './client.js'
import type { Context, ThirdWord } from './command.js'
import { Exit, Failure } from './failure.js'
import { nodeOption as option } from './options.js'
import { padLeft } from './output.js'
import { confirm } from './prompt.js'
import { sizeField } from './sizes.js'
import { withWords } from './third-words.js'

const SYNOPSIS = '[disks]'
/** A 1.0 sheep deletes what it finds there; ours takes no directory that holds another store's objects. */
const PLUG_CAUTION = 'The directories to be plugged will be purged.'
const UNPLUG_CAUTION = 'Recovery will be triggered after unplugging.'

const info: ThirdWord = {
  name: 'info',
  summary: 'show multi-disk information',
  synopsis: SYNOPSIS,
  run: runInfo,
}

const plug: ThirdWord = {
  name: 'plug',
  summary: 'plug more disk(s) into node',
  synopsis: SYNOPSIS,
  needsOperand: true,
  run: (context) => change(context, Op.MD_PLUG, PLUG_CAUTION),
}

const unplug: ThirdWord = {
  name: 'unplug',
  summary: 'unplug disk(s) from node',
  synopsis: SYNOPSIS,
  needsOperand: true,
  run: (context) => change(context, Op.MD_UNPLUG, UNPLUG_CAUTION),
}

export const md = withWords({
  name: 'md',
  summary: 'See md information about cluster or change it',
  options: [
    option.address,
    option.port,
    option.raw,
    option.all,
    option.force,
    option.help,
    option.time,
    option.json,
  ],
  synopsis: SYNOPSIS,
  words: [info, plug, unplug],
})

interface Disks {
  readonly id: number
  readonly node: SdNode
  readonly disks: readonly DiskInfo[]
}

async function runInfo(context: Context): Promise<number> {
  const { options, out, sheep } = context
  const told: Disks[] = []
  if (!options.raw && !options.json) out.line('Id\tSize\tUsed\tAvail\tUse%\tPath')
  let status: number = Exit.ok
  for (const { id, node } of await asked(context)) {
    const peer = sheep.peer(node)
    try {
      told.push({ id, node, disks: await disksOf(peer) })
    } catch (error) {
      out.error(`failed to get multi-disk infomation from ${nodeKey(node)}: ${reasonOf(error)}`)
      status = Exit.system
      continue
    } finally {
      await peer.close()
    }
    if (!options.json) sayDisks(context, told.at(-1)!)
  }
  if (options.json) out.json({ nodes: told.map(disksJson) })
  return status
}

/** The contacted node, or all that have disks. */
async function asked({ options, sheep }: Context): Promise<{ id: number; node: SdNode }[]> {
  const nodes = (await sheep.nodes()).map((node, id) => ({ id, node }))
  if (options.all) return nodes.filter(({ node }) => node.vnodes > 0)
  const { host, port } = sheep.address
  const own = nodes.find(({ node }) => node.port === port && node.host === host)
  if (own !== undefined) return [own]
  // Reached under another name than it announces.
  return [{ id: 0, node: { host, port, vnodes: 0, zone: 0, spaceBytes: 0 } }]
}

async function disksOf(sheep: Sheep): Promise<DiskInfo[]> {
  const head = plainRequest({ opcode: Op.MD_INFO, dataLength: MD_INFO_BYTES })
  return decodeMdInfo((await sheep.ask(head)).body)
}

function sayDisks({ options, out }: Context, { id, node, disks }: Disks): void {
  if (options.all && !options.raw) out.line(`Node ${id}:`)
  for (const { index, usedBytes, freeBytes, path } of disks) {
    const sizeBytes = usedBytes + freeBytes
    const percent = sizeBytes === 0 ? 0 : Math.floor((usedBytes / sizeBytes) * 100)
    const sizes = [sizeBytes, usedBytes, freeBytes].map((bytes) => sizeField(bytes, options.raw))
    if (options.raw) out.line([nodeKey(node), index, ...sizes, `${percent}%`, path].join(' '))
    else
      out.line([padLeft(`${index}`, 2), ...sizes, `${padLeft(`${percent}`, 3)}%`, path].join('\t'))
  }
}

function disksJson({ id, node, disks }: Disks): Record<string, unknown> {
  const rows = disks.map(({ index, path, usedBytes, freeBytes }) => {
    return { id: index, path, sizeBytes: usedBytes + freeBytes, usedBytes, freeBytes }
  })
  return { id, host: node.host, port: node.port, disks: rows }
}

async function change(context: Context, opcode: number, caution: string): Promise<number> {
  const { operands, options, sheep } = context
  if (!options.force) await confirm(context, question(caution))
  const body = Buffer.from(`${operands[0] ?? ''}\0`)
  const head = plainRequest({ opcode, flags: Flag.WRITE, dataLength: body.length })
  const { result } = await sheep.exchange(head, body)
  if (result === Code.SUCCESS) return Exit.ok
  // 1.0 knows one refusal, whose reason is in the log of the sheep.
  const reason = result === Code.UNKNOWN ? [] : [`Response's result: ${codeText(result)}`]
  throw new Failure(Exit.failed, [
    ...reason,
    'Failed to execute request, look for sheep.log for more information',
  ])
}

function question(caution: string): string {
  return (
    '    __\n' +
    "   ()'`;\n" +
    '   /\\|`\n' +
    `  /  |   Caution! ${caution}\n` +
    '(/_)_|_  Are you sure you want to continue? [yes/no]: '
  )
}
