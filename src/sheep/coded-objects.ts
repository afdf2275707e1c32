/**
 * Reading and writing erasure-coded objects: data, vmstate and attributes of coded volumes (protocol spec, 12.5).
 *
 * A write is acknowledged when all fragments have it, and refused (HALT) while there are fewer zones than
 * fragments: sheepdog 1.0 writes the data fragments alone then and leaves stale parity (defect P10). A read asks
 * for the data fragments and decodes from parity at once when one cannot be had (P9).
 *
 * What holds for concurrent operations: through one gateway a read sees each sector before or after a write,
 * never in between (`stripe-order.ts`), and of two writes of one sector the later one stays. A read through another
 * gateway than the writer's may meet a write half-way and see fragments of both versions of a sector; volumes
 * are locked by one writer for that reason. A sector whose write was cut off by the death of its gateway, and
 * never acknowledged, may hold neither version until it is written again.
 */
import { roundDown } from '../base/bytes.js'
import { Code, type Done } from '../base/codes.js'
import type { Log } from '../base/log.js'
import { STRIPE_BYTES, type StripMath } from '../base/strips.js'
import type { ErasureCode } from '../model/erasure.js'
import { nodeKey, type SdNode } from '../model/node.js'
import { type FragmentId, fragmentId, type Oid, oidName, oidVid } from '../model/oid.js'
import { ownersOf } from '../model/ring.js'
import { Flag, Op } from '../wire/sheepdog/opcodes.js'
import { objectRequest } from '../wire/sheepdog/requests.js'
import { codeFor } from './coding.js'
import type { Settling, Track } from './equal/settling.js'
import { type Ask, Gathering } from './gathering.js'
import type { Layout, Layouts } from './layouts.js'
import type { LocalObjects, LocalWrite } from './local-objects.js'
import { moreTelling, replyCode } from './outcome.js'
import type { Peers } from './peers.js'
import type { NodeState, View } from './state.js'
import { StripeOrder } from './stripe-order.js'

/** What came of an attempt on an object. */
export interface Attempt {
  readonly ref: Pick<CodedRef, 'isWanted'>
  readonly code: Code
  /** From 0. */
  readonly attempt: number
}

/** `again` when another try may help, else `done`; a gateway's way of waiting for a better membership. */
export type Retry = (what: Attempt, done: Done, again: () => void) => void

export interface CodedObjectsOptions {
  readonly state: NodeState
  readonly local: LocalObjects
  readonly peers: Peers
  readonly layouts: Layouts
  readonly log: Log
  readonly strips?: StripMath | undefined
  readonly settling: Settling
  readonly retry: Retry
}

/** One of the nodes an object is spread over, in the order of the fragments. */
interface Holder {
  readonly node: SdNode
  readonly id: FragmentId
  readonly kind: 'self' | 'remote' | 'gone'
}

/** Where the fragments of an object are, under one view. */
export interface CodedPlace {
  readonly view: View
  /** Empty: nothing coded can exist yet. */
  readonly holders: readonly Holder[]
  /** There is a zone for every fragment. */
  readonly isComplete: boolean
  readonly remotes: readonly SdNode[]
}

/** A coded object and, once it has been looked up, where it is. */
export interface CodedRef {
  readonly oid: Oid
  /** False once nobody waits for what is done with this reference: it is not tried again then. */
  readonly isWanted: (() => boolean) | undefined
  coded: CodedPlace | undefined
}

/** A write of a coded object, of which account is kept (`equal/settling.ts`). */
export interface CodedWrite {
  readonly ref: CodedRef
  readonly track: Track
}

/** The same operation on every fragment. */
interface Spread {
  readonly opcode: number
  readonly flags: number
  /** In the fragment. */
  readonly offset: number
  readonly fragments: readonly Uint8Array[] | undefined
  readonly onLocal: (write: LocalWrite, done: Done) => void
  /** Kept account of, when fragments may differ because of it. */
  readonly track?: Track
}

/** Whole stripes around a range of bytes. */
interface Stripes {
  readonly first: number
  readonly count: number
}

const NOTHING = new Uint8Array(0)

function stripesAround(offset: number, length: number): Stripes {
  const first = Math.floor(offset / STRIPE_BYTES)
  return { first, count: Math.ceil((offset + length) / STRIPE_BYTES) - first }
}

export class CodedObjects {
  readonly #options: CodedObjectsOptions
  readonly #order = new StripeOrder()

  constructor(options: CodedObjectsOptions) {
    this.#options = options
  }

  read(ref: CodedRef, offset: number, into: Uint8Array, done: Done): void {
    const stripes = stripesAround(offset, into.length)
    this.#inTurn(ref, stripes, false, done, (code, finish) => {
      const isWhole = offset % STRIPE_BYTES === 0 && into.length % STRIPE_BYTES === 0
      const whole = isWhole ? into : Buffer.allocUnsafe(stripes.count * STRIPE_BYTES)
      this.#readStripes(ref, code, stripes, whole, (result) => {
        const at = offset - stripes.first * STRIPE_BYTES
        if (result === Code.SUCCESS && !isWhole) into.set(whole.subarray(at, at + into.length))
        finish(result)
      })
    })
  }

  write(
    { ref, track }: CodedWrite,
    offset: number,
    data: Uint8Array,
    durable: boolean,
    done: Done,
  ): void {
    const stripes = stripesAround(offset, data.length)
    this.#inTurn(ref, stripes, true, done, (code, finish) => {
      this.#whole(ref, code, stripes, { offset, data }, (result, whole) => {
        if (result !== Code.SUCCESS) {
          finish(result)
          return
        }
        const spread: Spread = {
          opcode: Op.WRITE_PEER,
          flags: Flag.WRITE | (durable ? Flag.DIRECT : Flag.CACHE),
          offset: code.share(stripes.first * STRIPE_BYTES),
          fragments: code.encode(whole),
          track,
          onLocal: (write, localDone) => this.#options.local.write(write, durable, localDone),
        }
        this.#everywhere(ref, code, spread, finish)
      })
    })
  }

  /** What is not given is zero, and so is its parity: only the stripes that are given travel. */
  create({ ref, track }: CodedWrite, offset: number, data: Uint8Array, done: Done): void {
    const stripes = stripesAround(offset, data.length)
    this.#inTurn(ref, { first: 0, count: Number.MAX_SAFE_INTEGER }, true, done, (code, finish) => {
      const whole = padded(stripes, { offset, data })
      const at = code.share(stripes.first * STRIPE_BYTES)
      this.#everywhere(
        ref,
        code,
        {
          opcode: Op.CREATE_AND_WRITE_PEER,
          flags: Flag.WRITE | Flag.DIRECT,
          offset: at,
          fragments: code.encode(whole),
          track,
          onLocal: (write, localDone) => this.#options.local.create(write, localDone),
        },
        finish,
      )
    })
  }

  remove(ref: CodedRef, done: Done): void {
    this.#inTurn(ref, { first: 0, count: Number.MAX_SAFE_INTEGER }, true, done, (code, finish) => {
      this.#everywhere(
        ref,
        code,
        {
          opcode: Op.REMOVE_PEER,
          flags: 0,
          offset: 0,
          fragments: undefined,
          onLocal: ({ epoch, id }, localDone) => this.#options.local.remove(epoch, id, localDone),
        },
        finish,
      )
    })
  }

  /** A write failed on some fragments: their owners make them fit each other before they are used again. */
  distrust(ref: CodedRef, done: Done): void {
    const code = codeFor(this.#options.state.codingOf(ref.oid), this.#options.strips)
    if (code === undefined) {
      done(Code.INVALID_PARMS)
      return
    }
    const onLocal: Spread['onLocal'] = ({ epoch }, localDone) =>
      this.#options.local.distrust(epoch, ref.oid, localDone)
    const spread = { opcode: Op.SUSPECT, flags: 0, offset: 0, fragments: undefined, onLocal }
    this.#everywhere(ref, code, spread, done)
  }

  /** Runs `act` when the stripes are free; they are until it has called back. */
  #inTurn(
    ref: CodedRef,
    { first, count }: Stripes,
    exclusive: boolean,
    done: Done,
    act: (code: ErasureCode, finish: Done) => void,
  ): void {
    const { state, strips } = this.#options
    const code = codeFor(state.codingOf(ref.oid), strips)
    if (code === undefined) {
      done(Code.INVALID_PARMS)
      return
    }
    this.#order.enter(ref.oid, { from: first, to: first + count, exclusive }, (leave) => {
      act(code, (result) => {
        done(result)
        leave()
      })
    })
  }

  /** The stripes a write touches, complete: what it leaves of the first and the last one is read. */
  #whole(
    ref: CodedRef,
    code: ErasureCode,
    { first, count }: Stripes,
    { offset, data }: { readonly offset: number; readonly data: Uint8Array },
    done: (result: Code, whole: Uint8Array) => void,
  ): void {
    const end = offset + data.length
    const partial = [offset, end]
      .filter((edge) => edge % STRIPE_BYTES !== 0)
      .map((edge) => roundDown(edge, STRIPE_BYTES) / STRIPE_BYTES)
    if (partial.length === 0) {
      done(Code.SUCCESS, data)
      return
    }
    const whole = Buffer.allocUnsafe(count * STRIPE_BYTES)
    const edges = [...new Set(partial)]
    let waiting = edges.length
    let outcome: Code = Code.SUCCESS
    for (const stripe of edges) {
      const at = (stripe - first) * STRIPE_BYTES
      const into = whole.subarray(at, at + STRIPE_BYTES)
      this.#readStripes(ref, code, { first: stripe, count: 1 }, into, (result) => {
        outcome = moreTelling(outcome, result)
        if (--waiting > 0) return
        whole.set(data, offset - first * STRIPE_BYTES)
        done(outcome, whole)
      })
    }
  }

  #readStripes(
    ref: CodedRef,
    code: ErasureCode,
    stripes: Stripes,
    into: Uint8Array,
    done: Done,
    attempt = 0,
  ): void {
    this.#placed(ref, code, done, (place) => {
      const gathering = new Gathering(code, this.#askable(place), (result, fragments) => {
        if (result === Code.SUCCESS) {
          code.decode(fragments, into)
          done(result)
          return
        }
        if (result === Code.EIO) this.#tellUnreadable(ref, place)
        this.#options.retry({ ref, code: result, attempt }, done, () =>
          this.#readStripes(ref, code, stripes, into, done, attempt + 1),
        )
      })
      const offset = code.share(stripes.first * STRIPE_BYTES)
      const length = code.share(stripes.count * STRIPE_BYTES)
      gathering.start((index, got, late) =>
        this.#readFragment(place, code, index, { offset, length }, { got, late }),
      )
    })
  }

  #readFragment(
    { view, holders }: CodedPlace,
    code: ErasureCode,
    index: number,
    { offset, length }: { readonly offset: number; readonly length: number },
    { got, late }: { readonly got: Parameters<Ask>[1]; readonly late: () => void },
  ): void {
    const { local, peers, state } = this.#options
    const { kind, node, id } = holders[index]!
    if (kind === 'self') {
      const bytes = Buffer.allocUnsafe(length)
      local.read(view.epoch, id, offset, bytes, (result) => got(result, bytes))
      return
    }
    const head = objectRequest({
      opcode: Op.READ_PEER,
      epoch: view.epoch,
      oid: oidOf(holders),
      offset,
      copies: code.width,
      policy: state.codingOf(id),
      fragment: index,
      dataLength: length,
      blockSizeShift: state.blockSizeShiftOf(oidVid(id)),
    })
    const done: Parameters<typeof peers.request>[3] = (reply) => {
      const result = replyCode(reply)
      const body = reply?.body ?? NOTHING
      const isShort = result === Code.SUCCESS && body.length !== length
      got(isShort ? Code.NETWORK_ERROR : result, body)
    }
    peers.request(node, head, undefined, done, late)
  }

  /** Fragments of nodes that are there; those of silent ones are asked for last. */
  #askable({ holders }: CodedPlace): { readonly count: number; readonly candidates: number[] } {
    const living = holders.flatMap(({ kind }, index) => (kind === 'gone' ? [] : [index]))
    const isSlow = (index: number): boolean => {
      const { kind, node } = holders[index]!
      return kind === 'remote' && !this.#options.peers.isQuick(node)
    }
    const slow = living.filter(isSlow)
    const candidates =
      slow.length === 0 ? living : [...living.filter((index) => !isSlow(index)), ...slow]
    return { count: holders.length, candidates }
  }

  /** The operation on every fragment; SUCCESS only when all of them had it under one membership. */
  #everywhere(ref: CodedRef, code: ErasureCode, what: Spread, done: Done, attempt = 0): void {
    const { state, retry } = this.#options
    this.#placed(ref, code, done, (place) => {
      const isWrite = what.fragments !== undefined
      const living = place.holders.filter(({ kind }) => kind !== 'gone')
      if (living.length === 0 || (isWrite && !place.isComplete)) {
        const halt = state.status === 'ok' ? Code.HALT : Code.WAIT_FOR_JOIN
        retry({ ref, code: halt, attempt }, done, () =>
          this.#everywhere(ref, code, what, done, attempt + 1),
        )
        return
      }
      if (what.track !== undefined) {
        const self = living.some(({ kind }) => kind === 'self') ? state.self : undefined
        this.#options.settling.sending(what.track, place.remotes, self)
      }
      let waiting = living.length
      let outcome: Code = Code.SUCCESS
      const one = (result: Code): void => {
        outcome = moreTelling(outcome, result)
        if (--waiting > 0) return
        if (outcome === Code.SUCCESS) done(outcome)
        else {
          retry({ ref, code: outcome, attempt }, done, () =>
            this.#everywhere(ref, code, what, done, attempt + 1),
          )
        }
      }
      for (const holder of living) this.#send(place, code, holder, what, one)
    })
  }

  #send(place: CodedPlace, code: ErasureCode, holder: Holder, what: Spread, done: Done): void {
    const { peers, state } = this.#options
    const index = place.holders.indexOf(holder)
    const data = what.fragments?.[index] ?? NOTHING
    if (holder.kind === 'self') {
      what.onLocal({ epoch: place.view.epoch, id: holder.id, offset: what.offset, data }, done)
      return
    }
    const head = objectRequest({
      opcode: what.opcode,
      flags: what.flags,
      epoch: place.view.epoch,
      offset: what.offset,
      oid: oidOf(place.holders),
      copies: code.width,
      policy: state.codingOf(holder.id),
      fragment: index,
      dataLength: data.length,
      blockSizeShift: state.blockSizeShiftOf(oidVid(holder.id)),
    })
    const payload = data.length === 0 ? undefined : data
    peers.request(holder.node, head, payload, (reply) => done(replyCode(reply)))
  }

  /** Calls `then` with where the fragments are; at once unless history must be asked. */
  #placed(
    ref: CodedRef,
    code: ErasureCode,
    done: Done,
    then: (place: CodedPlace) => void,
    attempt = 0,
  ): void {
    const { state, layouts, retry } = this.#options
    const { view } = state
    const later = (result: Code): void =>
      retry({ ref, code: result, attempt }, done, () =>
        this.#placed(ref, code, done, then, attempt + 1),
      )
    if (!state.isSure()) {
      later(Code.WAIT_FOR_JOIN)
      return
    }
    if (ref.coded?.view === view) {
      then(ref.coded)
      return
    }
    const use = (layout: Layout): void => {
      ref.coded = this.#place(ref.oid, code, view, layout)
      then(ref.coded)
    }
    const known = layouts.now(code.width)
    if (known !== undefined) {
      use(known)
      return
    }
    layouts.at(view.epoch, code.width).then(
      (layout) => {
        if (layout === 'unknown' || state.view !== view) later(Code.NETWORK_ERROR)
        else use(layout)
      },
      () => done(Code.EIO),
    )
  }

  #place(oid: Oid, code: ErasureCode, view: View, layout: Layout): CodedPlace {
    const { state } = this.#options
    if (typeof layout === 'string') return { view, holders: [], isComplete: false, remotes: [] }
    const living = new Set(view.ring.nodes.map(nodeKey))
    const holders = ownersOf(layout.ring, oid, code.width).map((node, index): Holder => {
      const kind = state.isSelf(node) ? 'self' : living.has(nodeKey(node)) ? 'remote' : 'gone'
      return { node, id: fragmentId(oid, index), kind }
    })
    const remotes = holders.filter(({ kind }) => kind === 'remote').map(({ node }) => node)
    return { view, holders, isComplete: layout === view, remotes }
  }

  #tellUnreadable({ oid }: CodedRef, place: CodedPlace): void {
    const fields = { oid: oidName(oid), vid: oidVid(oid), epoch: place.view.epoch }
    this.#options.log.error('object.fragments.missing', fields)
  }
}

function oidOf(holders: readonly Holder[]): Oid {
  return BigInt.asUintN(64, holders[0]!.id) as Oid
}

/** Whole stripes with the data inside and zeros around it. */
function padded(
  { first, count }: Stripes,
  { offset, data }: { readonly offset: number; readonly data: Uint8Array },
): Uint8Array {
  if (data.length === count * STRIPE_BYTES) return data
  const whole = Buffer.alloc(count * STRIPE_BYTES)
  whole.set(data, offset - first * STRIPE_BYTES)
  return whole
}
