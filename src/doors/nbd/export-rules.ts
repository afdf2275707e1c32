/**
 * Who may have which export, and how: rules in order, of which the first one that fits the name and admits the client
 * decides. Rules only grant: where there are any, what none of them grants is refused.
 */
import { isLike } from '../../model/pattern.js'
import type { Subnet } from '../../model/subnet.js'

export interface ExportRule {
  /** Pattern of the export's name as clients write it: `*` any characters, `?` one. */
  readonly name: string
  readonly readOnly: boolean
  /** Served to those who know the name; in no list. */
  readonly hidden: boolean
  /** Undefined: from everywhere. */
  readonly addresses: readonly Subnet[] | undefined
  /** Names a verified certificate, or the name of the pre-shared key; undefined: nothing is asked for. */
  readonly certificates: readonly string[] | undefined
  /** Told to clients instead of what is known of the volume. */
  readonly description: string | undefined
}

export interface ExportRules {
  /** What the empty name means; undefined: the only VDI there is. */
  readonly defaultExport: string | undefined
  /** Undefined: everybody may have everything. */
  readonly rules: readonly ExportRule[] | undefined
}

export const NO_RULES: ExportRules = { defaultExport: undefined, rules: undefined }

/** A client as the rules see it. */
export interface Visitor {
  /** Numeric address; undefined: it came over a local socket. */
  readonly host: string | undefined
  /** Of its verified certificate or its key; empty when it showed none. */
  readonly names: readonly string[]
}

const OPEN_TO_ALL: ExportRule = {
  ...{ name: '*', readOnly: false, hidden: false, description: undefined },
  ...{ addresses: undefined, certificates: undefined },
}

/** The rule that grants; undefined: refused. */
export function grantOf(
  { rules }: ExportRules,
  exportName: string,
  visitor: Visitor,
): ExportRule | undefined {
  if (rules === undefined) return OPEN_TO_ALL
  return rules.find((rule) => isLike(rule.name, exportName) && admits(rule, visitor))
}

function admits({ addresses, certificates }: ExportRule, { host, names }: Visitor): boolean {
  const isNear = addresses === undefined || addresses.some((subnet) => subnet.has(host))
  const isKnown = certificates === undefined || certificates.some((name) => names.includes(name))
  return isNear && isKnown
}
