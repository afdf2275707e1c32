/**
 * What initiator and target agree on during login (RFC 7143, section 13). Answers follow from the initiator's offers
 * and our limits alone; the order of keys does not matter.
 */
import { ISCSI_LIMITS } from '../../wire/iscsi/constants.js'
import { numberOf } from '../../wire/iscsi/text.js'

export interface Parameters {
  headerDigest: boolean
  dataDigest: boolean
  initialR2t: boolean
  immediateData: boolean
  /** Data of one PDU the initiator takes. */
  sendBytesMax: number
  burstBytesMax: number
  firstBurstBytesMax: number
  outstandingR2tMax: number
}

/** Before anything was negotiated: the defaults of the RFC. */
export function defaultParameters(): Parameters {
  return {
    headerDigest: false,
    dataDigest: false,
    initialR2t: true,
    immediateData: true,
    sendBytesMax: 8192,
    burstBytesMax: 262144,
    firstBurstBytesMax: 65536,
    outstandingR2tMax: 1,
  }
}

/** An offer that cannot be answered: the login fails. */
export class BadOffer extends Error {}

/** Undefined: the key is declared and not answered. */
type Rule = (value: string, agreed: Parameters, isDiscovery: boolean) => string | undefined

const REJECT = 'Reject'
const IRRELEVANT = 'Irrelevant'
/** Bytes of the smallest segment or burst (section 13.12 to 13.14). */
const BYTES_MIN = 512
const BYTES_LIMIT = 2 ** 24

const yesNo = (value: string): boolean | undefined =>
  value === 'Yes' ? true : value === 'No' ? false : undefined
const word = (value: boolean): string => (value ? 'Yes' : 'No')

/** A digest: the first of the list we know. */
function digest(name: 'headerDigest' | 'dataDigest'): Rule {
  return (value, agreed) => {
    const chosen = value.split(',').find((one) => one === 'None' || one === 'CRC32C')
    if (chosen === undefined) return REJECT
    agreed[name] = chosen === 'CRC32C'
    return chosen
  }
}

/** `or`: Yes when one of both wants it; else when both do. `ours` is what we want. */
function flag(ours: boolean, how: 'or' | 'and', keep?: 'initialR2t' | 'immediateData'): Rule {
  return (value, agreed, isDiscovery) => {
    if (isDiscovery) return IRRELEVANT
    const theirs = yesNo(value)
    if (theirs === undefined) return REJECT
    const result = how === 'or' ? theirs || ours : theirs && ours
    if (keep !== undefined) agreed[keep] = result
    return word(result)
  }
}

interface Bounds {
  readonly ours: number
  readonly min: number
  readonly limit: number
  readonly how: 'least' | 'most'
}

type NumberName = 'burstBytesMax' | 'firstBurstBytesMax' | 'outstandingR2tMax'

function number({ ours, min, limit, how }: Bounds, keep?: NumberName): Rule {
  return (value, agreed, isDiscovery) => {
    if (isDiscovery && keep !== undefined) return IRRELEVANT
    const theirs = numberOf(value)
    if (theirs === undefined || theirs < min || theirs > limit) return REJECT
    const result = how === 'least' ? Math.min(theirs, ours) : Math.max(theirs, ours)
    if (keep !== undefined) agreed[keep] = result
    return String(result)
  }
}

const bytes = (ours: number): Bounds => ({
  ...{ ours, min: BYTES_MIN, limit: BYTES_LIMIT - 1, how: 'least' },
})

const RULES: Readonly<Record<string, Rule>> = {
  HeaderDigest: digest('headerDigest'),
  DataDigest: digest('dataDigest'),
  InitialR2T: flag(false, 'or', 'initialR2t'),
  ImmediateData: flag(true, 'and', 'immediateData'),
  MaxRecvDataSegmentLength: (value, agreed) => {
    const theirs = numberOf(value)
    if (theirs === undefined || theirs < BYTES_MIN || theirs >= BYTES_LIMIT) {
      throw new BadOffer(`MaxRecvDataSegmentLength=${value}`)
    }
    agreed.sendBytesMax = theirs
    return undefined
  },
  MaxBurstLength: number(bytes(ISCSI_LIMITS.burstBytesMax), 'burstBytesMax'),
  FirstBurstLength: number(bytes(ISCSI_LIMITS.firstBurstBytesMax), 'firstBurstBytesMax'),
  MaxOutstandingR2T: number(
    { ours: ISCSI_LIMITS.outstandingR2tMax, min: 1, limit: 65535, how: 'least' },
    'outstandingR2tMax',
  ),
  MaxConnections: number({ ours: 1, min: 1, limit: 65535, how: 'least' }),
  DefaultTime2Wait: number({ ours: 0, min: 0, limit: 3600, how: 'most' }),
  DefaultTime2Retain: number({ ours: 0, min: 0, limit: 3600, how: 'least' }),
  ErrorRecoveryLevel: number({ ours: 0, min: 0, limit: 2, how: 'least' }),
  DataPDUInOrder: flag(true, 'or'),
  DataSequenceInOrder: flag(true, 'or'),
  // Markers are gone from the protocol; initiators of before still offer them (RFC 7143, section 13.25).
  IFMarker: () => 'No',
  OFMarker: () => 'No',
  IFMarkInt: () => IRRELEVANT,
  OFMarkInt: () => IRRELEVANT,
  TaskReporting: (value) => (value.split(',').includes('RFC3720') ? 'RFC3720' : REJECT),
  iSCSIProtocolLevel: number({ ours: 1, min: 0, limit: 31, how: 'least' }),
  InitiatorAlias: () => undefined,
}

/**
 * Answers what the initiator offers, in its order, and keeps what is agreed. Keys of `handled` belong to somebody
 * else. Throws BadOffer.
 */
export function negotiate(
  offers: ReadonlyMap<string, string>,
  handled: ReadonlySet<string>,
  agreed: Parameters,
  isDiscovery: boolean,
): [string, string][] {
  const answers: [string, string][] = []
  for (const [key, value] of offers) {
    if (handled.has(key)) continue
    // An answer to what we declared; nothing of ours is negotiable.
    if (value === REJECT || value === IRRELEVANT || value === 'NotUnderstood') continue
    const rule = Object.hasOwn(RULES, key) ? RULES[key] : undefined
    const answer = rule === undefined ? 'NotUnderstood' : rule(value, agreed, isDiscovery)
    if (answer !== undefined) answers.push([key, answer])
  }
  agreed.firstBurstBytesMax = Math.min(agreed.firstBurstBytesMax, agreed.burstBytesMax)
  return answers
}
