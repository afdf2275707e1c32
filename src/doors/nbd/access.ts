/**
 * The volumes as one client may see them: a source that refuses what the rules do not grant, before it looks whether
 * there is such an export, so that a refusal tells nothing.
 */
import { Code, SheepError } from '../../base/codes.js'
import { readOnly } from '../../volume/read-only.js'
import type { ExportInfo, Volume, VolumeContext, VolumeSource } from '../../volume/volume.js'
import { type ExportRule, type ExportRules, grantOf, type Visitor } from './export-rules.js'

/** Its client may not have the export. The message is for the client. */
export class AccessRefused extends Error {}

/** The rules in force; they may change at any time and count for what is asked from then on. */
export interface RuleBook {
  readonly current: ExportRules
}

/** `visitor` is asked each time: a client shows its certificate in the middle of the handshake. */
export function accessFor(
  source: VolumeSource,
  book: RuleBook,
  visitor: () => Visitor,
): VolumeSource {
  /** The volume below a view of it. */
  const under = new WeakMap<Volume, Volume>()

  const granted = async (asked: string): Promise<{ name: string; rule: ExportRule }> => {
    const name = asked === '' ? await defaultName(source, book.current, visitor()) : asked
    const rule = grantOf(book.current, name, visitor())
    if (rule === undefined) throw new AccessRefused(`export '${name}' is not for this client`)
    return { name, rule }
  }
  return {
    list: async () => {
      const all = await source.list()
      return all.flatMap((info) => {
        const rule = grantOf(book.current, info.name, visitor())
        return rule === undefined || rule.hidden ? [] : [shown(info, rule)]
      })
    },
    stat: async (asked) => {
      const { name, rule } = await granted(asked)
      const info = await source.stat(name)
      return { ...info, ...shown(info, rule) }
    },
    open: async (asked) => {
      const { name, rule } = await granted(asked)
      const volume = await source.open(name)
      if (!rule.readOnly || volume.readOnly) return volume
      const view = readOnly(volume)
      under.set(view, volume)
      return view
    },
    contexts: async (asked) => source.contexts((await granted(asked)).name),
    context: (volume: Volume, contextName: string): Promise<VolumeContext> =>
      source.context(under.get(volume) ?? volume, contextName),
  }
}

function shown(info: ExportInfo, rule: ExportRule): ExportInfo {
  const { name, sizeBytes } = info
  return {
    ...{ name, sizeBytes },
    readOnly: info.readOnly || rule.readOnly,
    description: rule.description ?? info.description,
  }
}

/** Where no name is configured it is the only VDI the client may see; where there are several, nobody guesses. */
async function defaultName(
  source: VolumeSource,
  rules: ExportRules,
  visitor: Visitor,
): Promise<string> {
  if (rules.defaultExport !== undefined) return rules.defaultExport
  const disks = (await source.list()).filter(({ name, readOnly: isSnapshot }) => {
    const rule = grantOf(rules, name, visitor)
    return !isSnapshot && rule !== undefined && !rule.hidden
  })
  const [only] = disks
  if (only === undefined || disks.length > 1) {
    throw new SheepError(Code.NO_VDI, 'no default export: name one')
  }
  return only.name
}
