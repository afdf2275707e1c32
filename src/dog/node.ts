/** The noun `node`. */
import { codeText } from '../base/codes.js'
import { nodeKey, type SdNode } from '../model/node.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import { reasonOf, type Sheep } from './client.js'
import type { Context, Noun, Subcommand } from './command.js'
import { Exit, Failure } from './failure.js'
import { isSnapshot, listVdis } from './listing.js'
import { log } from './node-log.js'
import { md } from './node-md.js'
import { recovery } from './node-recovery.js'
import { stat } from './node-stat.js'
import { vnodes } from './node-vnodes.js'
import { nodeOption as option } from './options.js'
import { padLeft, padRight } from './output.js'
import { sizeField } from './sizes.js'

const list: Subcommand = {
  name: 'list',
  summary: 'list nodes',
  options: [option.address, option.port, option.raw, option.help, option.time, option.json],
  synopsis: '',
  run: runList,
}

const info: Subcommand = {
  name: 'info',
  summary: 'show information about each node',
  options: [option.address, option.port, option.raw, option.help, option.time, option.json],
  synopsis: '',
  run: runInfo,
}

const kill: Subcommand = {
  name: 'kill',
  summary: 'kill node',
  options: [option.address, option.port, option.raw, option.help, option.local, option.time],
  synopsis: '<node id>',
  run: runKill,
}

export const node: Noun = {
  name: 'node',
  subcommands: [kill, list, info, recovery, md, stat, log, vnodes],
}

async function runList({ options, out, sheep }: Context): Promise<number> {
  const nodes = await sheep.nodes()
  if (options.json) {
    out.json({ nodes: nodes.map((one, id) => nodeJson(id, one)) })
    return Exit.ok
  }
  if (!options.raw) out.line('  Id   Host:Port         V-Nodes       Zone')
  for (const [id, one] of nodes.entries()) {
    const { vnodes, zone } = one
    if (options.raw) out.line(`${id} ${nodeKey(one)} ${vnodes} ${zone}`)
    else {
      const place = `${padLeft(`${id}`, 4)}   ${padRight(nodeKey(one), 20)}`
      out.line(`${place}\t${padLeft(`${vnodes}`, 2)}${padLeft(`${zone}`, 11)}`)
    }
  }
  return Exit.ok
}

/** One node for --json; `node info` adds sizes in bytes. `id`: what `node kill` takes. */
function nodeJson(id: number, one: SdNode): Record<string, unknown> {
  const { host, port, vnodes, zone, io } = one
  return { id, host, port, vnodes, zone, ...(io !== undefined && { io }) }
}

interface SpaceRow {
  readonly label: string
  readonly sizeBytes: number
  readonly freeBytes: number
}

async function runInfo(context: Context): Promise<number> {
  const { options, out, sheep } = context
  const nodes = await sheep.nodes()
  if (!options.raw && !options.json) out.line('Id\tSize\tUsed\tAvail\tUse%')
  const total = { label: 'Total', sizeBytes: 0, freeBytes: 0 }
  const found: Record<string, unknown>[] = []
  for (const [id, one] of nodes.entries()) {
    if (one.vnodes === 0) continue
    const space = await spaceOf(context, one)
    if (space === undefined) continue
    const label = options.raw ? `${id}` : padLeft(`${id}`, 2)
    const row = { label, sizeBytes: space.storeBytes, freeBytes: space.freeBytes }
    total.sizeBytes += row.sizeBytes
    total.freeBytes += row.freeBytes
    found.push({ ...nodeJson(id, one), ...spaceJson(row), sure: !space.unsure })
    if (space.unsure) {
      out.error(`${nodeKey(one)} is not sure that it belongs to the cluster, and serves nothing`)
    }
    if (!options.json) sayRow(context, row)
  }
  if (found.length === 0) {
    throw new Failure(Exit.system, ['Cannot get information from any nodes'])
  }
  let virtualBytes = 0
  for await (const { header } of listVdis(context)) {
    if (!isSnapshot(header)) virtualBytes += header.sizeBytes
  }
  if (options.json) {
    out.json({ nodes: found, total: spaceJson(total), virtualImageBytes: virtualBytes })
  } else if (options.raw) {
    sayRow(context, total, ` ${virtualBytes}`)
  } else {
    sayRow(context, total)
    out.line(`\nTotal virtual image size\t${sizeField(virtualBytes, false)}`)
  }
  return Exit.ok
}

async function spaceOf(context: Context, one: SdNode): ReturnType<typeof askSpace> {
  const peer = context.sheep.peer(one)
  try {
    return await askSpace(peer)
  } catch (error) {
    context.out.error(`Response's result: ${reasonOf(error)}`)
    return undefined
  } finally {
    await peer.close()
  }
}

async function askSpace(peer: Sheep): Promise<Awaited<ReturnType<Sheep['space']>> | undefined> {
  return await peer.space()
}

function spaceJson({ sizeBytes, freeBytes }: SpaceRow): Record<string, number> {
  return { sizeBytes, usedBytes: sizeBytes - freeBytes, freeBytes }
}

function sayRow({ out, options }: Context, row: SpaceRow, tail = ''): void {
  const usedBytes = row.sizeBytes - row.freeBytes
  const percent = row.sizeBytes === 0 ? 0 : Math.floor((usedBytes / row.sizeBytes) * 100)
  const sizes = [row.sizeBytes, usedBytes, row.freeBytes].map((n) => sizeField(n, options.raw))
  if (options.raw) out.line(`${[row.label, ...sizes, `${percent}%`].join(' ')}${tail}`)
  else out.line([row.label, ...sizes, `${padLeft(`${percent}`, 3)}%`].join('\t'))
}

async function runKill({ operands, options, sheep }: Context): Promise<number> {
  const usage = (line: string): Failure => new Failure(Exit.usage, [line])
  const [id] = operands
  if (options.local) {
    if (id !== undefined) throw usage("don't use -l option and specify node id at the same time")
    return await sendKill(sheep)
  }
  if (id === undefined) throw usage('please specify -l option or node id')
  if (!/^\d+$/.test(id)) throw usage(`Invalid node id '${id}', please specify a numeric value`)
  const victim = (await sheep.nodes())[Number(id)]
  if (victim === undefined) throw usage(`Invalid node id '${id}'`)
  const peer = sheep.peer(victim)
  try {
    return await sendKill(peer)
  } finally {
    await peer.close()
  }
}

async function sendKill(sheep: Sheep): Promise<number> {
  const fail = (...lines: string[]): Failure =>
    new Failure(Exit.failed, [...lines, 'Failed to execute request'])
  const reply = await sheep.exchange(plainRequest({ opcode: Op.KILL_NODE })).catch(() => {
    throw fail()
  })
  if (reply.result !== 0) throw fail(`Response's result: ${codeText(reply.result)}`)
  return Exit.ok
}
