/**
 * Names of exports: `Alice` is the working VDI, `Alice@tag` and `Alice@1` are snapshots of it. What
 * stands after the last '@' is an id when it is all decimal, else a tag. A working VDI whose own
 * name has an '@' comes first.
 */
import { Code, codeOf, SheepError } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import type { Selector, VdiAccess } from '../model/access.js'
import { type InodeHeader, sdTimeSeconds } from '../model/inode.js'
import type { Vid } from '../model/oid.js'
import type { ExportInfo } from './volume.js'

const ID_PATTERN = /^\d{1,9}$/

export interface Target {
  readonly vid: Vid
  readonly isSnapshot: boolean
}

function isVdiName(name: string): boolean {
  return name !== '' && Buffer.byteLength(name) <= LIMITS.nameBytesMax
}

/** Finds what an export name means. Rejects with NO_VDI or NO_TAG. */
export async function resolveExport(vdis: VdiAccess, exportName: string): Promise<Target> {
  const at = exportName.lastIndexOf('@')
  try {
    if (!isVdiName(exportName)) throw new SheepError(Code.NO_VDI)
    return { vid: await vdis.find(exportName, { kind: 'working' }), isSnapshot: false }
  } catch (error) {
    if (at < 0 || codeOf(error) !== Code.NO_VDI) throw error
  }
  const name = exportName.slice(0, at)
  const which = exportName.slice(at + 1)
  if (!isVdiName(name)) throw new SheepError(Code.NO_VDI)
  if (!isVdiName(which)) throw new SheepError(Code.NO_TAG)
  return { vid: await vdis.find(name, selectorOf(which)), isSnapshot: true }
}

function selectorOf(which: string): Selector {
  return ID_PATTERN.test(which)
    ? { kind: 'id', snapId: Number(which) }
    : { kind: 'tag', tag: which }
}

function isSnapshot(header: InodeHeader): boolean {
  return header.snapCtime !== 0n
}

/**
 * What can be exported, sorted by name. A snapshot goes by its tag where that leads back to it, by
 * its id where the tag is empty, looks like an id, has an '@' or is not the only one of its kind.
 */
export function exportsOf(headers: readonly InodeHeader[]): ExportInfo[] {
  const tagged = new Map<string, number>()
  for (const { name, tag } of headers.filter(isSnapshot)) {
    const key = `${name}@${tag}`
    tagged.set(key, (tagged.get(key) ?? 0) + 1)
  }
  for (const { name } of headers.filter((header) => !isSnapshot(header))) tagged.delete(name)
  const nameOf = (header: InodeHeader): string => {
    const { name, tag, snapId } = header
    if (!isSnapshot(header)) return name
    const isPlain = tag !== '' && !tag.includes('@') && !ID_PATTERN.test(tag)
    return isPlain && tagged.get(`${name}@${tag}`) === 1 ? `${name}@${tag}` : `${name}@${snapId}`
  }
  return headers
    .map((header) => infoOf(nameOf(header), header))
    .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
}

export function infoOf(exportName: string, header: InodeHeader): ExportInfo {
  return {
    name: exportName,
    sizeBytes: header.sizeBytes,
    readOnly: isSnapshot(header),
    description: descriptionOf(header),
  }
}

function descriptionOf(header: InodeHeader): string {
  const { name, tag, snapId } = header
  if (!isSnapshot(header)) return `VDI ${name}, ${copiesOf(header)}`
  const taken = new Date(sdTimeSeconds(header.snapCtime) * 1000).toISOString()
  const label = tag === '' ? '' : ` (${tag})`
  return `snapshot ${snapId} of ${name}${label}, taken ${taken.slice(0, 19).replace('T', ' ')} UTC`
}

/** From the policy byte as it is, sane or not: this is for people. */
function copiesOf({ copies, policy }: InodeHeader): string {
  if (policy !== 0) return `erasure coded ${(policy >> 4) * 2}:${policy & 15}`
  return copies === 1 ? '1 copy' : `${copies} copies`
}
