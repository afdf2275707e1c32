/** `dog vdi list`. */
import type { InodeHeader } from '../model/inode.js'
import { type Oid, oidIndex, oidKind, oidVid, vidName } from '../model/oid.js'
import type { Context, Subcommand } from './command.js'
import { minuteText } from './dates.js'
import { Exit } from './failure.js'
import {
  createdAt,
  headerRedundancy,
  isClone,
  isSnapshot,
  listVdis,
  shownId,
  type VdiRow,
  vdiJson,
} from './listing.js'
import { vdiOption as option } from './options.js'
import { padLeft, padRight } from './output.js'
import { ownerOf } from './placement.js'
import { sizeField } from './sizes.js'
import { mustKnowVdis } from './waiting.js'

const HEADER =
  '  Name        Id    Size    Used  Shared    Creation time   VDI id  Copies  Tag   Block Size Shift'

export const list: Subcommand = {
  name: 'list',
  summary: 'list images',
  options: [
    option.address,
    option.port,
    option.raw,
    option.help,
    option.oid,
    option.time,
    option.json,
  ],
  synopsis: '[vdiname]',
  run: runList,
}

async function runList(context: Context): Promise<number> {
  const { out, options, operands } = context
  const [name] = operands
  const oid = options.oid as Oid | undefined
  if (!options.json && !options.raw) out.line(HEADER)
  const found: Record<string, unknown>[] = []
  let isEmpty = true
  const isData = oid === undefined || oidKind(oid) === 'data'
  if (isData) {
    const wanted = (header: InodeHeader): boolean => name === undefined || header.name === name
    for await (const row of listVdis(context, { usage: true, wanted })) {
      isEmpty = false
      if (oid !== undefined && !(await refersTo(context, row, oid))) continue
      if (options.json) found.push(vdiJson(row))
      else out.line(options.raw ? rawRow(row) : tableRow(row))
    }
  }
  if (isEmpty) await mustKnowVdis(context.sheep)
  if (options.json) out.json({ vdis: found })
  return isData ? Exit.ok : Exit.failed
}

async function refersTo(context: Context, row: VdiRow, oid: Oid): Promise<boolean> {
  return (await ownerOf(context, row, oidIndex(oid))) === oidVid(oid)
}

function kindMark(header: InodeHeader, otherwise: string): string {
  if (isSnapshot(header)) return 's'
  return isClone(header) ? 'c' : otherwise
}

function tableRow({ vid, header, usage }: VdiRow): string {
  const size = (bytes: number | undefined): string => padLeft(sizeField(bytes ?? 0, false), 7)
  return [
    kindMark(header, ' '),
    padRight(header.name, 8),
    padLeft(String(shownId(header)), 5),
    size(header.sizeBytes),
    size(usage?.usedBytes),
    size(usage?.sharedBytes),
    `${minuteText(createdAt(header))} `,
    padLeft(vidName(vid), 7),
    padLeft(headerRedundancy(header), 6),
    padLeft(header.tag, 13),
    padLeft(String(header.blockSizeShift), 3),
  ].join(' ')
}

function rawRow({ vid, header, usage }: VdiRow): string {
  return [
    kindMark(header, '='),
    header.name.replace(/[ \\]/g, '\\$&'),
    shownId(header),
    header.sizeBytes,
    usage?.usedBytes ?? 0,
    usage?.sharedBytes ?? 0,
    createdAt(header),
    vidName(vid),
    headerRedundancy(header),
    header.tag,
    header.blockSizeShift,
  ].join(' ')
}
