/** `dog vdi tree` and `dog vdi graph`: how snapshots descend from each other. */
import type { InodeHeader } from '../model/inode.js'
import { type Vid, vidName } from '../model/oid.js'
import type { Context, Subcommand } from './command.js'
import { clockText, dayText, minuteText } from './dates.js'
import { Exit } from './failure.js'
import { createdAt, isSnapshot, listVdis, shownId, type VdiRow, vdiJson } from './listing.js'
import { vdiOption as option } from './options.js'
import { padLeft, textBytes } from './output.js'
import { sizeText } from './sizes.js'

const BOLD = '\x1b[1m'
const PLAIN = '\x1b[0m'
const HERE = '(you are here)'

export const tree: Subcommand = {
  name: 'tree',
  summary: 'show images in tree view format',
  options: [option.address, option.port, option.help, option.time, option.json],
  synopsis: '',
  run: runTree,
}

export const graph: Subcommand = {
  name: 'graph',
  summary: 'show images in Graphviz dot format',
  options: [option.address, option.port, option.help, option.time],
  synopsis: '',
  run: runGraph,
}

export interface Branch {
  readonly row: VdiRow
  readonly children: Branch[]
}

async function runTree(context: Context): Promise<number> {
  const { out } = context
  const roots = await grow(listVdis(context))
  if (context.options.json) {
    out.json({ families: roots.map(branchJson) })
    return Exit.ok
  }
  for (const root of roots) {
    const { name } = root.row.header
    out.text(drawing({ label: name, width: width(name), children: [limb(root, out.isTTY)] }))
  }
  return Exit.ok
}

/**
 * Children by their parents. Links are followed within one name only: a clone is a root of its
 * own.
 */
export async function grow(rows: AsyncIterable<VdiRow>): Promise<Branch[]> {
  const branches = new Map<Vid, Branch>()
  for await (const row of rows) branches.set(row.vid, { row, children: [] })
  const roots: Branch[] = []
  for (const branch of branches.values()) {
    const { header, vid } = branch.row
    const parent = header.parent === vid ? undefined : branches.get(header.parent)
    const sameName = parent?.row.header.name === header.name
    if (parent !== undefined && sameName) parent.children.push(branch)
    else roots.push(branch)
  }
  return roots
}

/** For --json: a VDI as `vdi list` has it, without usage, and its descendants of the same name. */
function branchJson(branch: Branch): Record<string, unknown> {
  return { ...vdiJson(branch.row), children: branch.children.map(branchJson) }
}

/** What is drawn: `width` counts the columns of a label, escape sequences left out. */
interface Limb {
  readonly label: string
  readonly width: number
  readonly children: readonly Limb[]
}

function width(text: string): number {
  return textBytes(text).length
}

function limb(branch: Branch, highlight: boolean): Limb {
  const { header } = branch.row
  const plain = isSnapshot(header) ? `[${minuteText(createdAt(header))}]` : HERE
  const label = highlight && plain === HERE ? `${BOLD}${plain}${PLAIN}` : plain
  const children = branch.children.map((child) => limb(child, highlight))
  return { label, width: width(plain), children }
}

/** `before`: what continues open branches on the lines below the first. */
function drawing(tip: Limb, before = ''): string {
  if (tip.children.length === 0) return `${tip.label}\n`
  const indent = before + ' '.repeat(tip.width)
  const lines = tip.children.map((child, i) => {
    const last = i === tip.children.length - 1
    const below = `${indent}${last ? '   ' : ' | '}`
    if (i === 0) return `${tip.label}${last ? '---' : '-+-'}${drawing(child, below)}`
    return `${indent}${last ? ' `-' : ' |-'}${drawing(child, below)}`
  })
  return lines.join('')
}

async function runGraph(context: Context): Promise<number> {
  const { out } = context
  out.line('digraph G {')
  out.line('  node [shape = "box", fontname = "Courier"];\n')
  out.line('  "0" [shape = "ellipse", label = "root"];\n')
  for await (const { vid, header } of listVdis(context)) out.line(graphNode(vid, header))
  out.line('}')
  return Exit.ok
}

function graphNode(vid: Vid, header: InodeHeader): string {
  const name = vidName(vid)
  const field = (text: string): string => padLeft(text, 10)
  const label = [
    `Name: ${field(header.name)}`,
    `Tag:  ${field(shownId(header).toString(16))}`,
    `Size: ${field(sizeText(header.sizeBytes))}`,
    `Date: ${field(dayText(createdAt(header)))}`,
    `Time: ${field(clockText(createdAt(header)))}`,
  ].join('\\n')
  const color = isSnapshot(header) ? '' : ',\n    color="red"'
  return [
    `  "${vidName(header.parent)}" -> "${name}";`,
    `  "${name}" [`,
    `    group = "${header.name}",`,
    `    label = "${label}"${color}`,
    '  ];\n',
  ].join('\n')
}
