/** `dog cluster info`: status, format and history of the cluster. */
import { Code, codeText, SheepError, toCode } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import { sdTimeSeconds } from '../model/inode.js'
import { NODE_BYTES, nodeKey, type SdNode } from '../model/node.js'
import { redundancyText } from '../model/policy.js'
import { ClusterFlag, Op } from '../wire/sheepdog/opcodes.js'
import {
  decodeEpochLogRecord,
  EPOCH_LOG_HEAD_BYTES,
  type EpochLogRecord,
} from '../wire/sheepdog/records.js'
import { clusterRequest } from '../wire/sheepdog/requests.js'
import type { Sheep } from './client.js'
import { missingNodes } from './cluster-force.js'
import type { Context, Subcommand } from './command.js'
import { ctimeText, secondText } from './dates.js'
import { Exit } from './failure.js'
import { clusterOption as option } from './options.js'
import { padLeft } from './output.js'

/** Node slots and records of the first question; both grow as needed. */
const FIRST_SLOTS = 16
const FIRST_RECORDS = 64

export const info: Subcommand = {
  name: 'info',
  summary: 'show cluster information',
  options: [
    option.address,
    option.port,
    option.raw,
    option.help,
    option.verbose,
    option.time,
    option.diff,
    option.json,
  ],
  synopsis: '',
  run: runInfo,
}

interface History {
  readonly result: number
  /** Newest first. Only the first tells how the cluster is formatted. */
  readonly records: readonly EpochLogRecord[]
}

async function runInfo(context: Context): Promise<number> {
  const { options, out, sheep } = context
  const members = await sheep.nodes()
  const history = await readHistory(sheep)
  const [newest] = history.records
  if (options.json) {
    const missing = missingFrom(history, members).map(nodeKey)
    out.json({ ...historyJson(history), missing })
    return Exit.ok
  }
  sayMissing(context, missingFrom(history, members))
  const label = (text: string): string => (options.raw ? '' : text)
  out.line(`${label('Cluster status: ')}${statusText(history)}`)
  if (options.verbose) sayFormat(context, history)
  else out.line()
  if (newest === undefined) return Exit.ok
  if (!options.raw) {
    if (newest.ctime > 0n) {
      out.line(`Cluster created at ${ctimeText(sdTimeSeconds(newest.ctime))}\n`)
    }
    out.line('Epoch Time           Version [Host:Port:V-Nodes,,,]')
  }
  history.records.forEach((record, i) => {
    const older = history.records[i + 1]
    const nodes = options.diff ? difference(record, older) : record.nodes.map(weighed).join(', ')
    const time = options.raw ? `${record.time}` : secondText(record.time)
    const epoch = options.raw ? `${record.epoch}` : padLeft(`${record.epoch}`, 6)
    out.line(`${time} ${epoch} [${nodes}]`)
  })
  return Exit.ok
}

/**
 * The whole history, or as much of its newer end as one answer holds. Throws the SheepError of a
 * sheep that cannot tell; a cluster that is not running is no error.
 */
export async function readHistory(sheep: Sheep): Promise<History> {
  let slots = FIRST_SLOTS
  let wanted = FIRST_RECORDS
  for (;;) {
    const recordBytes = EPOCH_LOG_HEAD_BYTES + slots * NODE_BYTES
    const room = Math.floor(LIMITS.sheepdogPayloadBytesMax / recordBytes)
    const count = Math.min(wanted, room)
    const reply = await sheep.exchange(
      clusterRequest({
        opcode: Op.STAT_CLUSTER,
        dataLength: count * recordBytes,
        nodeSlots: slots,
      }),
    )
    if (reply.result === Code.BUFFER_SMALL && slots < LIMITS.nodesMax) {
      slots = Math.min(slots * 2, LIMITS.nodesMax)
      continue
    }
    const records = decodeRecords(reply.body, recordBytes, slots)
    const oldest = records.at(-1)
    if (oldest !== undefined && records.length === count && oldest.epoch > 1 && count < room) {
      wanted = records[0]!.epoch
      continue
    }
    if (reply.result === Code.BUFFER_SMALL) throw new SheepError(toCode(reply.result))
    return { result: reply.result, records }
  }
}

/** Nodes of the newest epoch a cluster waits for; none while it runs. */
function missingFrom({ result, records }: History, members: readonly SdNode[]): SdNode[] {
  if (result !== Code.WAIT_FOR_JOIN) return []
  return missingNodes(records[0]?.nodes ?? [], members)
}

/** On stderr: what 1.0 prints stays as it is. */
function sayMissing({ out }: Context, missing: readonly SdNode[]): void {
  if (missing.length > 0) out.error(`Missing nodes: ${missing.map(nodeKey).join(', ')}`)
}

function decodeRecords(body: Buffer, recordBytes: number, slots: number): EpochLogRecord[] {
  return Array.from({ length: Math.floor(body.length / recordBytes) }, (_, i) =>
    decodeEpochLogRecord(body.subarray(i * recordBytes, (i + 1) * recordBytes), slots),
  )
}

function statusText({ result, records }: History): string {
  if (result !== Code.SUCCESS) return codeText(result)
  return `running, auto-recovery ${records[0]?.recoveryDisabled ? 'disabled' : 'enabled'}`
}

function vnodeMode(record: EpochLogRecord | undefined): string {
  return ((record?.flags ?? 0) & ClusterFlag.DISKMODE) !== 0 ? 'disk' : 'node'
}

function vnodesStrategy(record: EpochLogRecord): string {
  return (record.flags & ClusterFlag.AUTO_VNODES) !== 0 ? 'auto' : 'fixed'
}

function sayFormat({ options, out }: Context, { result, records }: History): void {
  const label = (text: string): string => (options.raw ? '' : text)
  const [newest] = records
  if (newest === undefined) out.line(`${label('Cluster store: ')}${codeText(result)}`)
  else {
    const redundancy = redundancyText(newest)
    out.line(`${label('Cluster store: ')}${newest.store} with ${redundancy} redundancy policy`)
    out.line(`${label('Cluster vnodes strategy: ')}${vnodesStrategy(newest)}`)
  }
  out.line(`${label('Cluster vnode mode: ')}${vnodeMode(newest)}`)
}

function weighed(node: SdNode): string {
  return `${nodeKey(node)}:${node.vnodes}`
}

/** `+A, +B-C`; for the oldest epoch known the word of 1.0, misspelt as there. */
function difference(record: EpochLogRecord, older: EpochLogRecord | undefined): string {
  if (older === undefined) return 'formated'
  const before = new Set(older.nodes.map(nodeKey))
  const after = new Set(record.nodes.map(nodeKey))
  const signed = (sign: string, keys: Iterable<string>, known: ReadonlySet<string>): string =>
    [...keys]
      .filter((key) => !known.has(key))
      .map((key) => `${sign}${key}`)
      .join(', ')
  return `${signed('+', after, before)}${signed('-', before, after)}`
}

/**
 * For --json: `createdAt` and `time` in Unix seconds, epochs newest first, format fields once
 * formatted.
 */
function historyJson(history: History): Record<string, unknown> {
  const [newest] = history.records
  return {
    running: history.result === Code.SUCCESS,
    status: codeText(history.result),
    ...(newest === undefined
      ? {}
      : {
          autoRecovery: !newest.recoveryDisabled,
          store: newest.store,
          redundancy: redundancyText(newest),
          vnodesStrategy: vnodesStrategy(newest),
          vnodeMode: vnodeMode(newest),
          createdAt: sdTimeSeconds(newest.ctime),
        }),
    epochs: history.records.map(({ epoch, time, nodes }) => ({
      epoch,
      time,
      nodes: nodes.map(({ host, port, vnodes, zone }) => ({ host, port, vnodes, zone })),
    })),
  }
}
