/** `dog vdi inspect`: what is on a disk, without attaching it. */
import { SheepError } from '../base/codes.js'
import type { Content } from '../inspect/content.js'
import { type InspectedPartition, type Inspection, inspectDisk } from '../inspect/inspect.js'
import { vidName } from '../model/oid.js'
import type { Context, Subcommand } from './command.js'
import { Exit, failed } from './failure.js'
import type { OpenedVdi } from './image.js'
import { isSnapshot, shownId } from './listing.js'
import { openNamed } from './named.js'
import { vdiOption as option } from './options.js'
import { padLeft, padRight } from './output.js'
import { sizeText } from './sizes.js'
import { VdiReader } from './vdi-reader.js'

export const inspect: Subcommand = {
  name: 'inspect',
  summary: 'show the partitions and file systems of an image',
  options: [option.snapshot, option.address, option.port, option.help, option.time, option.json],
  synopsis: '<vdiname[@tag|@id]>',
  needsOperand: true,
  run: runInspect,
}

const HEADER = ['No', 'Start', 'Size', 'Type', 'Label', 'Holds', 'Name', 'Capacity', 'Used', 'Free']
const COLUMNS = [3, 10, 9, 20, 14, 14, 14, 9, 9, 9]
/** Numbers are to the right. */
const IS_NUMBER = [true, true, true, false, false, false, false, true, true, true]

async function runInspect(context: Context): Promise<number> {
  const { operands, options, out } = context
  const vdi = await openNamed(context, operands[0] ?? '')
  const { reader, inspection } = await look(context, vdi)
  if (options.json) out.json(asJson(vdi, reader.allocatedBytes, inspection))
  else for (const line of asTable(vdi, reader.allocatedBytes, inspection)) out.line(line)
  return Exit.ok
}

async function look(
  context: Context,
  vdi: OpenedVdi,
): Promise<{ readonly reader: VdiReader; readonly inspection: Inspection }> {
  try {
    const reader = await VdiReader.open(context, vdi)
    return { reader, inspection: await inspectDisk(reader) }
  } catch (error) {
    if (error instanceof SheepError) throw failed('Failed to read VDI')
    throw error
  }
}

function asJson(vdi: OpenedVdi, allocatedBytes: number, found: Inspection): unknown {
  const { header, vid } = vdi
  const { table, partitions, content } = found
  return {
    name: header.name,
    snapshotId: shownId(header),
    tag: header.tag,
    vid: vidName(vid),
    sizeBytes: found.sizeBytes,
    allocatedBytes,
    table: table ?? null,
    partitions: partitions.map((one) => ({ ...one, content: one.content ?? null })),
    content: content ?? null,
  }
}

function* asTable(vdi: OpenedVdi, allocatedBytes: number, found: Inspection): Generator<string> {
  const { table, partitions, content, sizeBytes } = found
  const name = displayName(vdi)
  const kind = table === undefined ? 'no partitions' : `${table.kind.toUpperCase()} ${table.id}`
  yield `${name}: ${sizeText(sizeBytes)}, ${sizeText(allocatedBytes)} allocated, ${kind}`
  if (content === undefined && table === undefined) {
    yield allocatedBytes === 0 ? 'Nothing was ever written to it.' : 'Nothing on it is recognised.'
    return
  }
  yield row(HEADER)
  if (content !== undefined) {
    yield row(['-', '', sizeText(sizeBytes), 'whole disk', '', ...contentCells(content)])
  }
  for (const partition of partitions) yield row(partitionCells(partition))
  for (const problem of table?.problems ?? []) yield `Problem: partition table: ${problem}`
  const holders = [{ number: 0, content }, ...partitions]
  for (const { number, content: held } of holders) {
    const where = number === 0 ? 'disk' : `partition ${number}`
    for (const problem of held?.problems ?? []) yield `Problem: ${where}: ${problem}`
    for (const detail of held?.details ?? []) yield `Note: ${where}: ${printable(detail)}`
  }
}

function displayName({ header }: OpenedVdi): string {
  if (!isSnapshot(header)) return printable(header.name)
  return printable(`${header.name}@${header.tag === '' ? header.snapId : header.tag}`)
}

function partitionCells(partition: InspectedPartition): string[] {
  const { number, startBytes, sizeBytes, type, typeName, label, content } = partition
  return [
    ...[String(number), sizeText(startBytes), sizeText(sizeBytes), typeName ?? type],
    ...[printable(label), ...contentCells(content)],
  ]
}

function contentCells(content: Content | undefined): string[] {
  if (content === undefined) return []
  const size = (bytes: number | undefined): string => (bytes === undefined ? '' : sizeText(bytes))
  const { type, version, label, sizeBytes, usedBytes, freeBytes } = content
  const kind = version === undefined ? type : `${type} ${version}`
  return [kind, printable(label ?? ''), size(sizeBytes), size(usedBytes), size(freeBytes)]
}

function row(cells: readonly string[]): string {
  return cells
    .map((cell, i) => (IS_NUMBER[i] ? padLeft(cell, COLUMNS[i]!) : padRight(cell, COLUMNS[i]!)))
    .join(' ')
    .trimEnd()
}

/** Letters that would move a terminal's cursor, or turn its direction, are not for it. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, '?')
}
