/**
 * Reservations of a logical unit as values and functions (SPC-4, 5.13; SPC-2 for RESERVE(6)). A nexus is an
 * initiator's port and a target port, of which each node has one: `iqn...,i,0xISID,t,0xGROUP`.
 */
import { Asc, SCSI_LIMITS, SenseKey } from '../../wire/scsi/constants.js'
import {
  CONFLICT,
  check,
  GOOD,
  INVALID_FIELD,
  INVALID_PARAMETER,
  type Outcome,
} from '../../wire/scsi/sense.js'

export type Access = 'free' | 'read' | 'write'

export const ReservationType = {
  WRITE_EXCLUSIVE: 1,
  EXCLUSIVE_ACCESS: 3,
  WRITE_EXCLUSIVE_REGISTRANTS: 5,
  EXCLUSIVE_ACCESS_REGISTRANTS: 6,
  WRITE_EXCLUSIVE_ALL: 7,
  EXCLUSIVE_ACCESS_ALL: 8,
} as const

const TYPES: readonly number[] = Object.values(ReservationType)
const WRITE_ONLY: readonly number[] = [1, 5, 7]
const FOR_REGISTRANTS: readonly number[] = [5, 6, 7, 8]
const OF_ALL: readonly number[] = [7, 8]

export const ProutAction = {
  REGISTER: 0,
  RESERVE: 1,
  RELEASE: 2,
  CLEAR: 3,
  PREEMPT: 4,
  PREEMPT_AND_ABORT: 5,
  REGISTER_AND_IGNORE: 6,
} as const

export interface Registration {
  readonly nexus: string
  readonly key: bigint
}

export interface Reservations {
  readonly generation: number
  /** Survives a restart. */
  readonly aptpl: boolean
  readonly registrations: readonly Registration[]
  /** Who holds it (any registrant, for types of all), and how. */
  readonly held: { readonly nexus: string; readonly type: number } | undefined
}

export const NOTHING_RESERVED: Reservations = {
  generation: 0,
  aptpl: false,
  registrations: [],
  held: undefined,
}

export interface ProutRequest {
  readonly action: number
  readonly nexus: string
  readonly type: number
  readonly key: bigint
  readonly newKey: bigint
  readonly aptpl: boolean
}

export interface ProutResult {
  readonly outcome: Outcome
  readonly next: Reservations
  /** Who is told what with their next command. */
  readonly told: readonly { readonly nexus: string; readonly code: number }[]
  /** Whose commands are to be aborted. */
  readonly aborted: readonly string[]
}

export function isRegistered({ registrations }: Reservations, nexus: string): boolean {
  return registrations.some((one) => one.nexus === nexus)
}

export function isHolder(state: Reservations, nexus: string): boolean {
  const { held } = state
  if (held === undefined) return false
  return OF_ALL.includes(held.type) ? isRegistered(state, nexus) : held.nexus === nexus
}

export function permits(state: Reservations, nexus: string, access: Access): boolean {
  const { held } = state
  if (held === undefined || access === 'free' || isHolder(state, nexus)) return true
  if (access === 'read' && WRITE_ONLY.includes(held.type)) return true
  return FOR_REGISTRANTS.includes(held.type) && isRegistered(state, nexus)
}

/** PERSISTENT RESERVE OUT. */
export function prout(state: Reservations, request: ProutRequest): ProutResult {
  const { action, nexus, key } = request
  const same = (outcome: Outcome): ProutResult => ({ outcome, next: state, told: [], aborted: [] })
  const mine = state.registrations.find((one) => one.nexus === nexus)
  if (action === ProutAction.REGISTER || action === ProutAction.REGISTER_AND_IGNORE) {
    const isRight = action === ProutAction.REGISTER_AND_IGNORE || key === (mine?.key ?? 0n)
    return isRight ? register(state, request, mine) : same(CONFLICT)
  }
  if (mine === undefined || mine.key !== key) return same(CONFLICT)
  if (action === ProutAction.RESERVE) return reserve(state, request)
  if (action === ProutAction.RELEASE) return release(state, request)
  if (action === ProutAction.CLEAR) {
    const next = { ...state, generation: raised(state), registrations: [], held: undefined }
    return { ...same(GOOD), next, told: tell(others(state, nexus), Asc.RESERVATIONS_PREEMPTED) }
  }
  const isPreempt = action === ProutAction.PREEMPT || action === ProutAction.PREEMPT_AND_ABORT
  return isPreempt ? preempt(state, request) : same(INVALID_FIELD)
}

function register(
  state: Reservations,
  { nexus, newKey, aptpl }: ProutRequest,
  mine: Registration | undefined,
): ProutResult {
  const result = { outcome: GOOD, next: state, told: [], aborted: [] }
  if (newKey === 0n) {
    if (mine === undefined) return result
    return unregister(state, nexus, aptpl)
  }
  if (mine === undefined && state.registrations.length >= SCSI_LIMITS.registrationsMax) {
    return { ...result, outcome: check(SenseKey.ILLEGAL_REQUEST, Asc.INSUFFICIENT_RESOURCES) }
  }
  const registration = { nexus, key: newKey }
  const registrations =
    mine === undefined
      ? [...state.registrations, registration]
      : state.registrations.map((one) => (one === mine ? registration : one))
  return { ...result, next: { ...state, generation: raised(state), aptpl, registrations } }
}

function unregister(state: Reservations, nexus: string, aptpl: boolean): ProutResult {
  const left = others(state, nexus)
  const { held } = state
  const isOfAll = held !== undefined && OF_ALL.includes(held.type)
  const isReleased = isOfAll ? left.length === 0 : held?.nexus === nexus
  const isNews = isReleased && held !== undefined && FOR_REGISTRANTS.includes(held.type)
  const next: Reservations = {
    ...{ generation: raised(state), aptpl, registrations: left },
    held: isReleased ? undefined : held,
  }
  const told = isNews ? tell(left, Asc.RESERVATIONS_RELEASED) : []
  return { outcome: GOOD, next, told, aborted: [] }
}

function reserve(state: Reservations, { nexus, type }: ProutRequest): ProutResult {
  const result = { outcome: GOOD, next: state, told: [], aborted: [] }
  if (!TYPES.includes(type)) return { ...result, outcome: INVALID_FIELD }
  const { held } = state
  if (held === undefined) return { ...result, next: { ...state, held: { nexus, type } } }
  const isSame = isHolder(state, nexus) && held.type === type
  return isSame ? result : { ...result, outcome: CONFLICT }
}

function release(state: Reservations, { nexus, type }: ProutRequest): ProutResult {
  const result = { outcome: GOOD, next: state, told: [], aborted: [] }
  const { held } = state
  if (held === undefined || !isHolder(state, nexus)) return result
  if (held.type !== type) {
    return { ...result, outcome: check(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_RELEASE) }
  }
  const isNews = FOR_REGISTRANTS.includes(held.type)
  const told = isNews ? tell(others(state, nexus), Asc.RESERVATIONS_RELEASED) : []
  return { ...result, next: { ...state, held: undefined }, told }
}

function preempt(state: Reservations, request: ProutRequest): ProutResult {
  const { nexus, newKey: victim, type, action } = request
  const failed = (outcome: Outcome) => ({ outcome, next: state, told: [], aborted: [] })
  const { held } = state
  const isOfAll = held !== undefined && OF_ALL.includes(held.type)
  const holderKey = state.registrations.find((one) => one.nexus === held?.nexus)?.key
  const takesOver = held !== undefined && (isOfAll ? victim === 0n : holderKey === victim)
  if (victim === 0n && !isOfAll) return failed(INVALID_PARAMETER)
  if (takesOver && !TYPES.includes(type)) return failed(INVALID_FIELD)
  const isGone = (one: Registration): boolean =>
    isOfAll && victim === 0n
      ? one.nexus !== nexus
      : one.key === victim && (!takesOver || one.nexus !== nexus)
  const gone = state.registrations.filter(isGone)
  if (gone.length === 0 && !takesOver) return failed(CONFLICT)
  const registrations = state.registrations.filter((one) => !isGone(one))
  const lost = isOfAll ? registrations.length === 0 : gone.some((one) => one.nexus === held?.nexus)
  const kept = lost ? undefined : held
  const next = {
    ...state,
    ...{ generation: raised(state), registrations, held: takesOver ? { nexus, type } : kept },
  }
  const victims = gone.filter((one) => one.nexus !== nexus)
  const told = [...tell(victims, Asc.REGISTRATIONS_PREEMPTED)]
  if (takesOver && held.type !== type) {
    const left = registrations.filter((one) => one.nexus !== nexus)
    told.push(...tell(left, Asc.RESERVATIONS_RELEASED))
  }
  const aborted = action === ProutAction.PREEMPT_AND_ABORT ? victims.map((one) => one.nexus) : []
  return { outcome: GOOD, next, told, aborted }
}

function raised({ generation }: Reservations): number {
  return (generation + 1) >>> 0
}

function others({ registrations }: Reservations, nexus: string): Registration[] {
  return registrations.filter((one) => one.nexus !== nexus)
}

function tell(whom: readonly Registration[], code: number): { nexus: string; code: number }[] {
  return whom.map(({ nexus }) => ({ nexus, code }))
}

/** Who has kept reservations: a node, in one of its lives. */
export interface Keeper {
  /** Number of the node's target port group. */
  readonly group: number
  readonly life: string
}

export interface Kept {
  readonly state: Reservations
  readonly keeper: Keeper
}

/** For keeping them with the volume: JSON, because people read it with `dog vdi getattr`. */
export function encodeReservations(state: Reservations, keeper: Keeper): Buffer {
  const registrations = state.registrations.map(({ nexus, key }) => ({
    nexus,
    key: key.toString(16),
  }))
  return Buffer.from(JSON.stringify({ ...state, registrations, keeper }), 'utf8')
}

/** Undefined for what is nothing of ours. */
export function decodeReservations(bytes: Buffer): Kept | undefined {
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
  if (!isRecord(value) || !Array.isArray(value.registrations)) return undefined
  const { generation, held, keeper } = value
  const registrations: Registration[] = []
  for (const one of value.registrations.slice(0, SCSI_LIMITS.registrationsMax)) {
    if (!isRecord(one) || typeof one.nexus !== 'string' || typeof one.key !== 'string')
      return undefined
    if (!/^[0-9a-f]{1,16}$/.test(one.key)) return undefined
    registrations.push({ nexus: one.nexus, key: BigInt(`0x${one.key}`) })
  }
  if (typeof generation !== 'number' || !Number.isSafeInteger(generation)) return undefined
  if (!isRecord(keeper) || typeof keeper.group !== 'number' || typeof keeper.life !== 'string')
    return undefined
  const of = { group: keeper.group, life: keeper.life }
  const base = { generation: generation >>> 0, aptpl: value.aptpl === true, registrations }
  if (held === undefined) return { state: { ...base, held: undefined }, keeper: of }
  if (!isRecord(held) || typeof held.nexus !== 'string' || typeof held.type !== 'number')
    return undefined
  if (!TYPES.includes(held.type)) return undefined
  return { state: { ...base, held: { nexus: held.nexus, type: held.type } }, keeper: of }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null
}
