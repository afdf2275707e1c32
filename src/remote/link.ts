/**
 * The way to a cluster from outside: one connection to one of its sheep, made anew when it ends, at another sheep if need be.
 * What was not answered is sent again on the next connection, in order, or waits for it; how long is the caller's patience.
 *
 * Sending again is safe because of what comes first on a new connection (`resume`): whoever changes a volume has its lock, which
 * ended with the connection before, after all that had come over it (doors/sheepdog/connection-locks.ts). To lock again is
 * therefore a fence: nothing sent before can come late.
 */
import { Code, retryOf, toCode } from '../base/codes.js'
import type { Log } from '../base/log.js'
import { type ReplyDone, SheepClient, type Watch } from '../peer/client.js'
import type { Frame } from '../wire/sheepdog/frame.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import type { Address, World } from '../world/world.js'

/** Below what a sheep takes of one connection at once (LIMITS), so that it goes on reading and answers probes. */
const REQUESTS_UNDER_WAY_MAX = 128
const BYTES_UNDER_WAY_MAX = 32 * 1024 * 1024
const RECONNECT_MS = 250
const AGAIN_MS = 500
const PATIENCE_CHECK_MS = 1_000

const WATCH: Watch = {
  tickMs: 1_000,
  silentTicks: 5,
  lateTicks: 1_000_000,
  probe: () => ({
    head: plainRequest({ opcode: Op.GET_VNODES, dataLength: 4 }),
    payload: Buffer.alloc(0),
  }),
}

/** Answers that say nothing of the request, only of the state the sheep or the cluster is in. */
const PASSING: ReadonlySet<number> = new Set([
  Code.HALT,
  Code.STALE_OBJ,
  Code.STARTUP,
  Code.SHUTDOWN,
  Code.NODE_IN_RECOVERY,
])

function isPassing(result: number): boolean {
  return retryOf(result) !== 'never' || PASSING.has(result)
}

export interface LinkOptions {
  readonly world: Pick<World, 'clock' | 'network'>
  readonly log: Log
  /** Tried in turn. */
  readonly addresses: readonly Address[]
  /** How long a request waits for an answer, over all connections; undefined: for ever. */
  readonly patienceMs: number | undefined
  /** What has to be done on every new connection before requests go over it. Rejects: it is given up. */
  readonly resume?: (client: SheepClient) => Promise<void>
}

/** Called once: with a reply, whatever its result, or the code of its absence. */
export type LinkDone = (reply: Frame | undefined, code: Code) => void

export interface LinkRequest {
  /** The id is filled in; borrowed until `done`. */
  readonly head: Buffer
  readonly payload?: Uint8Array | undefined
  /** Bytes the answer may bring. */
  readonly expects?: number
  /** Where its body is to be, when it is just this long: see `SheepClient.requestInto`. */
  readonly into?: Buffer
  /**
   * 'again': may be done twice. 'once': when its connection ends nobody knows whether it was done, and it fails with
   * NETWORK_ERROR.
   */
  readonly repeat: 'again' | 'once'
  readonly done: LinkDone
}

interface Task extends LinkRequest {
  readonly since: number
  readonly bytes: number
  over: boolean
}

export class Link {
  readonly #options: LinkOptions
  #client: SheepClient | undefined
  #address: Address | undefined
  #connecting = false
  #next = 0
  /** To be sent, in order. */
  #queue: Task[] = []
  /** Sent and not answered, in order. */
  readonly #sent = new Set<Task>()
  /** Sent on a connection that has ended: in front of the queue when the next one is there. */
  readonly #returned: Task[] = []
  #bytes = 0
  /** Why nothing goes any more. */
  #dead: Code | undefined
  #cancelPatience: (() => void) | undefined

  constructor(options: LinkOptions) {
    this.#options = options
  }

  /** A connection is there, and what had to be done on it is done. */
  get isUp(): boolean {
    return this.#client?.alive === true
  }

  /** Where the connection leads, or the last one did. */
  get address(): Address | undefined {
    return this.#address
  }

  submit(request: LinkRequest): void {
    if (this.#dead !== undefined) {
      request.done(undefined, this.#dead)
      return
    }
    const { payload, into, expects = into?.length ?? 0 } = request
    const bytes = (payload?.length ?? 0) + expects
    const since = this.#options.world.clock.monotonic()
    this.#queue.push({ ...request, since, bytes, over: false })
    this.#pump()
    if (this.#queue.length > 0 || this.#sent.size > 0) this.#watchPatience()
  }

  /** Fails what waits and what comes with `code`, and closes. */
  end(code: Code): void {
    if (this.#dead !== undefined) return
    this.#dead = code
    this.#cancelPatience?.()
    const client = this.#client
    this.#client = undefined
    client?.close()
    const waiting = [...this.#returned.splice(0), ...this.#sent, ...this.#queue]
    this.#sent.clear()
    this.#queue = []
    for (const task of waiting) this.#finish(task, undefined, code)
  }

  #finish(task: Task, reply: Frame | undefined, code: Code): void {
    if (task.over) return
    task.over = true
    task.done(reply, code)
  }

  #pump(): void {
    const client = this.#client
    if (client === undefined || !client.alive) {
      this.#connect()
      return
    }
    let taken = 0
    while (taken < this.#queue.length && this.#hasRoom) this.#send(client, this.#queue[taken++]!)
    if (taken > 0) this.#queue.splice(0, taken)
  }

  get #hasRoom(): boolean {
    return this.#sent.size < REQUESTS_UNDER_WAY_MAX && this.#bytes < BYTES_UNDER_WAY_MAX
  }

  #send(client: SheepClient, task: Task): void {
    if (task.over) return
    this.#sent.add(task)
    this.#bytes += task.bytes
    const done: ReplyDone = (reply) => {
      if (!this.#sent.delete(task)) return
      this.#bytes -= task.bytes
      if (reply === undefined) this.#lost(client, task)
      else if (isPassing(reply.result)) this.#later(task, toCode(reply.result))
      else {
        this.#finish(task, reply, Code.SUCCESS)
        if (this.#queue.length > 0) this.#pump()
      }
    }
    if (task.into === undefined) client.request(task.head, task.payload, done)
    else client.requestInto(task.head, task.into, done)
  }

  /** The connection has ended: this is called for all its requests, in their order. */
  #lost(client: SheepClient, task: Task): void {
    if (this.#client === client) {
      this.#client = undefined
      this.#options.log.warn('link.lost', { waiting: this.#sent.size + 1 })
      this.#options.world.clock.soon(() => this.#connect())
    }
    if (task.repeat === 'once') this.#finish(task, undefined, Code.NETWORK_ERROR)
    else this.#returned.push(task)
  }

  #later(task: Task, code: Code): void {
    if (this.#isPatient(task)) {
      this.#options.world.clock.after(AGAIN_MS, () => {
        if (this.#dead !== undefined) this.#finish(task, undefined, this.#dead)
        else {
          this.#queue.push(task)
          this.#pump()
        }
      })
    } else this.#finish(task, undefined, code)
    if (this.#queue.length > 0) this.#pump()
  }

  #isPatient({ since }: Task): boolean {
    const { patienceMs, world } = this.#options
    return patienceMs === undefined || world.clock.monotonic() - since < patienceMs
  }

  /** What has waited too long fails; bytes of it that are still on their way are cut off with their connection. */
  #watchPatience(): void {
    const { patienceMs, world } = this.#options
    if (patienceMs === undefined || this.#cancelPatience !== undefined) return
    this.#cancelPatience = world.clock.after(PATIENCE_CHECK_MS, () => {
      this.#cancelPatience = undefined
      const waiting = [...this.#returned, ...this.#sent, ...this.#queue]
      const late = waiting.filter((task) => !task.over && !this.#isPatient(task))
      if (late.some((task) => this.#sent.has(task))) this.#client?.abort('no answer in time')
      for (const task of late) this.#finish(task, undefined, Code.NETWORK_ERROR)
      this.#queue = this.#queue.filter((task) => !task.over)
      if (waiting.length > late.length) this.#watchPatience()
    })
  }

  #connect(): void {
    if (this.#connecting || this.#dead !== undefined) return
    this.#connecting = true
    void this.#tryAll().then((client) => {
      this.#connecting = false
      if (client === undefined) return
      if (this.#dead !== undefined) {
        client.close()
        return
      }
      this.#client = client
      const returned = this.#returned.splice(0).filter((task) => !task.over)
      this.#queue.unshift(...returned)
      this.#pump()
    })
  }

  /** Resolves with a connection that is ready, once there is one; or without when the link has ended. */
  async #tryAll(): Promise<SheepClient | undefined> {
    const { addresses, world, log, resume } = this.#options
    for (let attempt = 0; ; attempt++) {
      const address = addresses[this.#next % addresses.length]!
      try {
        const client = await SheepClient.connect(world, address)
        client.watch(WATCH)
        try {
          if (this.#dead === undefined) await resume?.(client)
        } catch (error) {
          client.close()
          throw error
        }
        if (attempt > 0) log.info('link.up', { attempt })
        this.#address = address
        return client
      } catch (error) {
        this.#next++
        if (attempt === 0) log.warn('link.down', { reason: String(error) })
      }
      if (this.#dead !== undefined) return undefined
      await new Promise<void>((resolve) => void world.clock.after(RECONNECT_MS, resolve))
      if (this.#dead !== undefined) return undefined
    }
  }
}
