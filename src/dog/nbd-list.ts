/** `dog nbd list`: what the NBD door of one sheep, or of one front, has served, and whom it serves. */
import { Code, codeText } from '../base/codes.js'
import { SheepClient } from '../peer/client.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import {
  decodeNbdRecords,
  type NbdConnectionRecord,
  type NbdCounters,
  type NbdExportRecord,
  type NbdRecord,
  nbdStatisticsRequest,
  nextIdOf,
} from '../wire/sheepdog/nbd-statistics.js'
import type { Context, Subcommand } from './command.js'
import { errnoText } from './errno.js'
import { Exit, Failure, failed, misused } from './failure.js'
import { attachedDevices, deviceJson, deviceTable } from './nbd-devices.js'
import { type OptionSpec, nodeOption as option } from './options.js'
import { padRight } from './output.js'
import { sizeField } from './sizes.js'

const PAGE_BYTES = 256 * 1024

const front: OptionSpec = {
  letter: 'F',
  long: 'front',
  valued: true,
  help: 'ask the stand-alone front with this PATH on this host',
}

export const list: Subcommand = {
  name: 'list',
  summary: 'list NBD exports in use and their clients',
  options: [option.address, option.port, front, option.raw, option.help, option.time, option.json],
  synopsis: '',
  run: runList,
}

/** NBD's command numbers, by what they are called here. */
const COMMANDS = {
  ...{ read: 0, write: 1, flush: 3, trim: 4, cache: 5, zero: 6, status: 7 },
} as const

async function runList(context: Context): Promise<number> {
  const { out, options, world } = context
  const records = await recordsOf(context)
  const exports = records.filter((record) => record.kind === 'export')
  const connections = records.filter((record) => record.kind === 'connection')
  const devices = await attachedDevices(world)
  if (options.json) {
    out.json({
      exports: exports.map(exportJson),
      connections: connections.map(connectionJson),
      devices: devices.map(deviceJson),
    })
    return Exit.ok
  }
  const raw = options.raw === true
  if (!raw)
    out.line(
      'Export                 Clients\tActive\tReads\tWrites\tFlushes\tErrors\tAll RD\tAll WR',
    )
  for (const record of exports) out.line(exportRow(record, raw))
  if (!raw)
    out.line('\nClient                 Export\tTLS\tHeaders\tActive\tErrors\tAll RD\tAll WR')
  for (const record of connections) out.line(connectionRow(record, raw))
  if (devices.length === 0) return Exit.ok
  out.line()
  for (const line of deviceTable(devices, raw)) out.line(line)
  return Exit.ok
}

async function recordsOf({ options, sheep, world }: Context): Promise<NbdRecord[]> {
  const { front: directory } = options
  if (directory === undefined) return await allRecords((head) => sheep.exchange(head))
  if (options.address !== undefined || options.port !== undefined) {
    throw misused('--front is asked at a socket in its PATH: -a and -p are for sheep')
  }
  const path = `${directory}/sock`
  const noAnswer = (error: unknown): never => {
    throw new Failure(Exit.system, [
      `No front answers at ${path}: ${errnoText(error)}`,
      'PATH is the directory that it was started with',
    ])
  }
  const client = await SheepClient.connect(world, { path }).catch(noAnswer)
  try {
    return await allRecords((head) => client.call(head).catch(noAnswer))
  } finally {
    client.close()
  }
}

async function allRecords(exchange: (head: Buffer) => Promise<Frame>): Promise<NbdRecord[]> {
  const records: NbdRecord[] = []
  let firstId = 0
  for (;;) {
    const reply = await exchange(nbdStatisticsRequest(firstId, PAGE_BYTES))
    if (reply.result === Code.INVALID_PARMS) {
      throw failed('This sheep does not tell about its NBD door: it is of another release')
    }
    if (reply.result !== Code.SUCCESS) {
      throw failed(`Failed to get the NBD statistics: ${codeText(reply.result)}`)
    }
    const page = decodeNbdRecords(reply.body)
    if (page === undefined) throw failed('The sheep sent NBD statistics that cannot be read')
    records.push(...page)
    const next = nextIdOf(reply)
    if (next <= firstId) return records
    firstId = next
  }
}

function exportRow(record: NbdExportRecord, raw: boolean): string {
  const { name, connections, requestsInFlight, counters } = record
  const { operations, errors } = counters
  const { read, write, flush } = COMMANDS
  const counts = [connections, requestsInFlight, operations[read], operations[write]]
  const rest = [operations[flush], errors]
  const fields = [...counts, ...rest, ...moved(counters, raw)]
  return raw ? [name, ...fields].join(' ') : `${padRight(name, 22)} ${fields.join('\t')}`
}

function connectionRow(record: NbdConnectionRecord, raw: boolean): string {
  const { client, exportName, tls, requestsInFlight, counters } = record
  const name = exportName ?? '-'
  const fields = [tls ? 'yes' : 'no', headersOf(record), requestsInFlight, counters.errors]
  const rest = [...fields, ...moved(counters, raw)]
  if (raw) return [client, name, ...rest].join(' ')
  return [`${padRight(client, 22)} ${name}${record.readOnly ? ' (ro)' : ''}`, ...rest].join('\t')
}

function moved({ bytes }: NbdCounters, raw: boolean): string[] {
  return [COMMANDS.read, COMMANDS.write].map((command) => sizeField(bytes[command] ?? 0, raw))
}

function headersOf({ structured, extended }: NbdConnectionRecord): string {
  return extended ? 'extended' : structured ? 'structured' : 'simple'
}

function exportJson(record: NbdExportRecord): Record<string, unknown> {
  const { name, connections, requestsInFlight, sinceMs, counters } = record
  return { name, connections, requestsInFlight, ...figures(sinceMs, counters) }
}

function connectionJson(record: NbdConnectionRecord): Record<string, unknown> {
  const { id, client, exportName, tls, readOnly, requestsInFlight, sinceMs, counters } = record
  return {
    ...{ id, client, export: exportName ?? null, tls, headers: headersOf(record), readOnly },
    ...{ requestsInFlight, ...figures(sinceMs, counters) },
  }
}

/** Bytes are those of the ranges asked for. */
function figures(sinceMs: number, counters: NbdCounters): Record<string, unknown> {
  const { operations, bytes, errors } = counters
  const named = Object.entries(COMMANDS).map(([name, command]) => {
    return [name, { count: operations[command], bytes: bytes[command] }] as const
  })
  return { since: new Date(sinceMs).toISOString(), errors, operations: Object.fromEntries(named) }
}
