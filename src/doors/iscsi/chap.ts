/**
 * CHAP, one-way and mutual (RFC 7143, section 12.1.3; RFC 1994): the side that is asked hashes an id, its secret and
 * the challenge. Secrets are bytes of the configuration and appear in no message.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { binaryOf } from '../../wire/iscsi/text.js'
import type { Random } from '../../world/world.js'

export interface Credentials {
  readonly user: string
  readonly secret: string
}

export interface ChapRules {
  /** Any of them lets an initiator in. */
  readonly users: readonly Credentials[]
  /** Who we say we are, where the initiator asks; undefined: we refuse to be asked. */
  readonly own: Credentials | undefined
}

/** By the numbers of CHAP_A, best first. */
const HASHES = [
  [7, 'sha256'],
  [6, 'sha1'],
  [5, 'md5'],
] as const
const CHALLENGE_BYTES = 32
const CHALLENGE_BYTES_MAX = 1024
const RESPONSE_BYTES_MAX = 64

export const CHAP_KEYS = ['CHAP_A', 'CHAP_I', 'CHAP_C', 'CHAP_N', 'CHAP_R'] as const

export type ChapStep =
  | { readonly kind: 'answer'; readonly pairs: [string, string][]; readonly done: boolean }
  | { readonly kind: 'refuse'; readonly reason: string }

const refuse = (reason: string): ChapStep => ({ kind: 'refuse', reason })

export class Chap {
  readonly #rules: ChapRules
  readonly #random: Random
  #hash: string | undefined
  #id = 0
  #challenge: Buffer = Buffer.alloc(0)
  /** Name the initiator proved to have. */
  user: string | undefined

  constructor(rules: ChapRules, random: Random) {
    this.#rules = rules
    this.#random = random
  }

  /** What the initiator said in one request, and what we say to it. */
  next(pairs: ReadonlyMap<string, string>): ChapStep {
    const algorithms = pairs.get('CHAP_A')
    if (this.#hash === undefined) {
      if (algorithms === undefined) return { kind: 'answer', pairs: [], done: false }
      return this.#challengeFor(algorithms)
    }
    return this.#judge(this.#hash, pairs)
  }

  #challengeFor(algorithms: string): ChapStep {
    const offered = algorithms.split(',')
    const chosen = HASHES.find(([number]) => offered.includes(String(number)))
    if (chosen === undefined) return refuse('no hash of CHAP in common')
    const [number, hash] = chosen
    this.#hash = hash
    this.#id = this.#random.below(256)
    this.#challenge = this.#random.bytes(CHALLENGE_BYTES)
    const pairs: [string, string][] = [
      ['CHAP_A', String(number)],
      ['CHAP_I', String(this.#id)],
      ['CHAP_C', `0x${this.#challenge.toString('hex')}`],
    ]
    return { kind: 'answer', pairs, done: false }
  }

  #judge(hash: string, pairs: ReadonlyMap<string, string>): ChapStep {
    const [name, response] = [pairs.get('CHAP_N'), pairs.get('CHAP_R')]
    if (name === undefined || response === undefined) return refuse('CHAP_N or CHAP_R is missing')
    const given = binaryOf(response, RESPONSE_BYTES_MAX)
    const isRight = (credentials: Credentials): boolean => {
      const right = digest(hash, this.#id, credentials.secret, this.#challenge)
      return given?.length === right.length && timingSafeEqual(given, right)
    }
    const known = this.#rules.users.filter(({ user }) => user === name)
    if (!known.some(isRight)) return refuse('wrong name or secret')
    const [id, challenge] = [pairs.get('CHAP_I'), pairs.get('CHAP_C')]
    this.user = name
    if (id === undefined && challenge === undefined)
      return { kind: 'answer', pairs: [], done: true }
    return this.#proveOurs(hash, id ?? '', challenge ?? '')
  }

  #proveOurs(hash: string, id: string, text: string): ChapStep {
    const { own } = this.#rules
    if (own === undefined) return refuse('the initiator asks for mutual CHAP, which is not set up')
    const challenge = binaryOf(text, CHALLENGE_BYTES_MAX)
    if (!/^\d{1,3}$/.test(id) || Number(id) > 255 || challenge === undefined) {
      return refuse('CHAP_I or CHAP_C is malformed')
    }
    // Who sends our challenge back wants us to answer it for him (RFC 7143, section 12.1.3).
    if (challenge.equals(this.#challenge)) return refuse('our own challenge came back')
    const response = digest(hash, Number(id), own.secret, challenge)
    const pairs: [string, string][] = [
      ['CHAP_N', own.user],
      ['CHAP_R', `0x${response.toString('hex')}`],
    ]
    return { kind: 'answer', pairs, done: true }
  }
}

function digest(hash: string, id: number, secret: string, challenge: Buffer): Buffer {
  return createHash(hash).update(Buffer.of(id)).update(secret, 'utf8').update(challenge).digest()
}
