/** `dog node stat`: what one sheep has done for clients and for its peers since it started. */

import { Op } from '../wire/sheepdog/opcodes.js'
import { decodeStat, STAT_BYTES, type Stat } from '../wire/sheepdog/records.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import { reasonOf } from './client.js'
import type { Context, Subcommand } from './command.js'
import { Exit, failed } from './failure.js'
import { nodeOption as option } from './options.js'
import { sizeField } from './sizes.js'

const WATCH_MS = 1_000
const HEADER = 'Request\tActive\tTotal\tWrite\tRead\tRemove\tFlush\tAll WR\tAll RD'

export const stat: Subcommand = {
  name: 'stat',
  summary: 'show stat information about the node',
  options: [
    option.address,
    option.port,
    option.raw,
    option.watch,
    option.help,
    option.time,
    option.json,
  ],
  synopsis: '',
  run: runStat,
}

/** One line of the table: requests of clients, or of other nodes. */
interface Row {
  readonly active: number
  readonly total: number
  readonly writes: number
  readonly reads: number
  readonly removes: number
  readonly flushes: number
  readonly writtenBytes: number
  readonly readBytes: number
}

function rowsOf(stat: Stat): { readonly client: Row; readonly peer: Row } {
  return {
    client: {
      active: stat.gatewayActive,
      total: stat.gatewayTotal,
      writes: stat.gatewayWrites,
      reads: stat.gatewayReads,
      removes: stat.gatewayRemoves,
      flushes: stat.gatewayFlushes,
      writtenBytes: stat.gatewayReceivedBytes,
      readBytes: stat.gatewaySentBytes,
    },
    peer: {
      active: stat.peerActive,
      total: stat.peerTotal,
      writes: stat.peerWrites,
      reads: stat.peerReads,
      removes: stat.peerRemoves,
      flushes: 0,
      writtenBytes: stat.peerReceivedBytes,
      readBytes: stat.peerSentBytes,
    },
  }
}

async function runStat(context: Context): Promise<number> {
  const { options, out, world } = context
  let before = await readStat(context)
  if (!options.watch) {
    say(context, before, undefined)
    return Exit.ok
  }
  for (;;) {
    const now = await readStat(context)
    say(context, now, before)
    await out.flush()
    before = now
    await new Promise<void>((resolve) => {
      world.clock.after(WATCH_MS, resolve)
    })
  }
}

async function readStat({ sheep }: Context): Promise<Stat> {
  try {
    const { body } = await sheep.ask(plainRequest({ opcode: Op.STAT, dataLength: STAT_BYTES }))
    if (body.length < STAT_BYTES) throw failed('The sheep sent counters cut short')
    return decodeStat(body)
  } catch (error) {
    throw failed(`Response's result: ${reasonOf(error)}`)
  }
}

/** `before`: the counters a second ago, when they are watched. */
function say({ options, out }: Context, now: Stat, before: Stat | undefined): void {
  const rows = rowsOf(now)
  const old = before === undefined ? undefined : rowsOf(before)
  if (options.json) {
    out.json({
      client: rowJson(rows.client, old?.client),
      peer: rowJson(rows.peer, old?.peer),
    })
    return
  }
  if (!options.raw) out.line(`${HEADER}${before === undefined ? '' : '\tWRBW\tRDBW\tRPS'}`)
  for (const [label, name] of [
    ['Client', 'client'],
    ['Peer', 'peer'],
  ] as const) {
    const fields = rowFields(rows[name], old?.[name], options.raw)
    out.line((options.raw ? fields : [label, ...fields]).join('\t'))
  }
}

function rowFields(row: Row, old: Row | undefined, raw: boolean | undefined): string[] {
  const { active, total, writes, reads, removes, flushes, writtenBytes, readBytes } = row
  const counts = [active, total, writes, reads, removes, flushes].map(String)
  const sizes = [writtenBytes, readBytes].map((bytes) => sizeField(bytes, raw))
  if (old === undefined) return [...counts, ...sizes]
  const speeds = [writtenBytes - old.writtenBytes, readBytes - old.readBytes]
  const requests = total - old.total
  return [...counts, ...sizes, ...speeds.map((bytes) => sizeField(bytes, raw)), `${requests}`]
}

/** For --json: sizes in bytes, speeds per second when watched. */
function rowJson(row: Row, old: Row | undefined): Record<string, number> {
  if (old === undefined) return { ...row }
  return {
    ...row,
    writtenBytesPerSecond: row.writtenBytes - old.writtenBytes,
    readBytesPerSecond: row.readBytes - old.readBytes,
    requestsPerSecond: row.total - old.total,
  }
}
