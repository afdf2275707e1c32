/** What initiators may find and open: the rules, the volumes and the logical units together. */
import { codeName, codeOf } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import type { VolumeSource } from '../../volume/volume.js'
import { LoginStatus } from '../../wire/iscsi/constants.js'
import type { Connection } from '../../world/world.js'
import type { LogicalUnit, Member } from './logical-unit.js'
import type { Admission, Visit } from './login.js'
import type { Elsewhere } from './paths.js'
import {
  type Caller,
  grantOf,
  nameOfTarget,
  type TargetRules,
  targetNameOf,
} from './target-rules.js'
import { isMissing, type Units } from './units.js'

/** The rules in force; they may change at any time and count for what is asked from then on. */
export interface TargetBook {
  readonly current: TargetRules
}

export interface TargetsOptions {
  readonly source: VolumeSource
  readonly book: TargetBook
  readonly units: Units
  readonly log: Log
  readonly elsewhere?: Elsewhere | undefined
}

/** A target cannot be opened. The status is for the initiator. */
export class TargetRefused extends Error {
  readonly status: number

  constructor(status: number, reason: string) {
    super(reason)
    this.status = status
  }
}

export class Targets {
  readonly #options: TargetsOptions

  constructor(options: TargetsOptions) {
    this.#options = options
  }

  /** Judged before anybody looks whether there is such a target, so that a refusal tells nothing. */
  admit({ initiator, target }: Visit, host: string | undefined): Admission {
    const rules = this.#options.book.current
    if (target === undefined) return { kind: 'granted', chap: rules.discovery }
    const name = nameOfTarget(rules.prefix, target)
    const rule = name === undefined ? undefined : grantOf(rules, name, { initiator, host })
    if (rule !== undefined) return { kind: 'granted', chap: rule.chap }
    const status = rules.rules === undefined ? LoginStatus.NOT_FOUND : LoginStatus.FORBIDDEN
    return { kind: 'refused', status, reason: 'no such target for this initiator' }
  }

  /** Names of the targets `caller` may have. */
  async list(caller: Caller): Promise<string[]> {
    const { source, book, log } = this.#options
    const rules = book.current
    const found = new Set<string>()
    const add = (name: string): void => {
      const target = targetNameOf(rules.prefix, name)
      if (target === undefined) log.info('iscsi.name.too-long', { volume: name })
      else found.add(target)
    }
    for (const { name, luns } of rules.rules ?? []) {
      if (luns !== undefined && grantOf(rules, name, caller)?.luns === luns) add(name)
    }
    for (const { name } of await source.list()) {
      const rule = grantOf(rules, name, caller)
      if (rule !== undefined && rule.luns === undefined) add(name)
    }
    return [...found]
  }

  /** The way to the node that has a LUN of the target; undefined: there is none but this. Rejects when it cannot be gone. */
  async elsewhere(target: string, caller: Caller): Promise<Connection | undefined> {
    const { book, elsewhere, units } = this.#options
    const rules = book.current
    const name = nameOfTarget(rules.prefix, target)
    const rule = name === undefined ? undefined : grantOf(rules, name, caller)
    if (elsewhere === undefined || name === undefined || rule === undefined) return undefined
    for (const volume of rule.luns ?? [await this.#asItIs(name)]) {
      const found = await elsewhere.connect(volume, caller.host)
      if (found === undefined) continue
      units.passedOn(volume)
      return found
    }
    return undefined
  }

  /** Opens all LUNs of a target, or none. Rejects with TargetRefused. */
  async open(
    visit: Visit & { readonly target: string },
    host: string | undefined,
    member: Member,
  ): Promise<Map<number, LogicalUnit>> {
    const { units: all, book } = this.#options
    const rules = book.current
    const name = nameOfTarget(rules.prefix, visit.target) ?? ''
    const rule = grantOf(rules, name, { initiator: visit.initiator, host })
    if (rule === undefined) throw new TargetRefused(LoginStatus.FORBIDDEN, 'rules have changed')
    const units = new Map<number, LogicalUnit>()
    try {
      for (const [lun, volume] of (rule.luns ?? [await this.#asItIs(name)]).entries()) {
        const { blockBytes, readOnly } = rule
        units.set(lun, await all.attach({ name: volume, blockBytes, readOnly }, member))
      }
      return units
    } catch (error) {
      await this.close(units, member)
      const reason = `${codeName(codeOf(error))}: ${error instanceof Error ? error.message : error}`
      const status = isMissing(error) ? LoginStatus.NOT_FOUND : LoginStatus.SERVICE_UNAVAILABLE
      throw new TargetRefused(status, reason)
    }
  }

  async close(units: ReadonlyMap<number, LogicalUnit>, member: Member): Promise<void> {
    await Promise.all([...units.values()].map((unit) => this.#options.units.detach(unit, member)))
  }

  /** A volume's name whose case the initiator has not kept; as it came when it is not clear which. */
  async #asItIs(name: string): Promise<string> {
    const { source } = this.#options
    try {
      await source.stat(name)
      return name
    } catch (error) {
      if (!isMissing(error)) throw error
      const names = (await source.list()).map((info) => info.name)
      const alike = names.filter((one) => one.toLowerCase() === name.toLowerCase())
      return alike.length === 1 ? alike[0]! : name
    }
  }
}
