/**
 * Stays with a device and gives the kernel a new connection for each that died. Requests that were not answered are sent
 * again by the kernel; who uses the device only sees that it takes long.
 *
 * The end of a keeper takes nothing away: the device goes on as long as its connections do, which is not long only where the
 * keeper carries their bytes (TLS); another one may take it over. A keeper ends by itself when the device is detached.
 */
import type { Address } from '../world/world.js'
import type { Context } from './command.js'
import { errnoText } from './errno.js'
import { Exit } from './failure.js'
import type { Attached, Way } from './nbd-attach.js'
import { backendText } from './nbd-backend.js'
import { KernelRefused } from './nbd-device.js'
import { addressText, DialFailed, dial, type OpenExport } from './nbd-dial.js'
import { descriptorsOf } from './nbd-open.js'

/** How long after a failed dial the next one begins, at first and at last. */
const REDIAL_MS_MIN = 200
const REDIAL_MS_MAX = 5_000
/** How often it is looked whether the device is still there: nothing tells. */
const LOOK_MS = 2_000

export class Keeper {
  readonly #context: Context
  readonly #way: Way
  /** Connections that died and have no successor yet, of any device until ours is known. */
  readonly #dead = new Map<number, number>()
  /** Events were lost: any number of connections may be dead. */
  #unsure = false
  #wake: () => void = () => undefined
  #server: Address | undefined
  #sizeBytes = 0
  /** What this process carries bytes for. */
  readonly #relays = new Set<Promise<void>>()
  #lastWords = ''

  /** Listens from now on. Throws a Failure. */
  constructor(context: Context, way: Way) {
    this.#context = context
    this.#way = way
    way.family.watch((index) => {
      if (index === undefined) this.#unsure = true
      else this.#dead.set(index, (this.#dead.get(index) ?? 0) + 1)
      this.#wake()
    })
  }

  /** Until the device is detached. */
  async run({ index, server, sizeBytes, relayed, isTakenOver }: Attached): Promise<number> {
    if (isTakenOver) this.#unsure = true
    this.#server = server
    this.#sizeBytes = sizeBytes
    const pid = await this.#pidOf(index)
    let pauseMs = REDIAL_MS_MIN
    while (pid !== undefined && (await this.#pidOf(index)) === pid) {
      if (!this.#unsure && (this.#dead.get(index) ?? 0) === 0) {
        pauseMs = REDIAL_MS_MIN
        await this.#rest(LOOK_MS)
      } else if (!(await this.#replaceOne(index))) {
        await this.#rest(pauseMs)
        pauseMs = Math.min(2 * pauseMs, REDIAL_MS_MAX)
      }
    }
    await Promise.all([relayed, ...this.#relays])
    await this.#say(index, 'detached')
    return Exit.ok
  }

  #carries({ relayed }: OpenExport): void {
    if (relayed === undefined) return
    this.#relays.add(relayed)
    void relayed.finally(() => this.#relays.delete(relayed))
  }

  async #pidOf(index: number): Promise<number | undefined> {
    const backend = backendText(this.#way.wish)
    const device = (await this.#way.kernel.devices()).find((one) => one.index === index)
    const isOurs = device?.backend === undefined || device.backend === backend
    return isOurs ? device?.pid : undefined
  }

  /** Whether it is worth going on at once. */
  async #replaceOne(index: number): Promise<boolean> {
    let found: OpenExport
    try {
      found = await this.#dialAny()
    } catch (error) {
      if (!(error instanceof DialFailed)) throw error
      void this.#say(index, error.message)
      return false
    }
    try {
      const taken = await this.#handOver(index, found)
      const left = (this.#dead.get(index) ?? 1) - 1
      this.#dead.set(index, taken ? Math.max(0, left) : 0)
      if (taken) this.#carries(found)
      if (!taken) this.#unsure = false
      else void this.#say(index, `connected to ${addressText(this.#server!)}`)
      return true
    } catch (error) {
      if (!(error instanceof KernelRefused)) throw error
      void this.#say(index, error.message)
      return false
    } finally {
      found.connection.destroy()
    }
  }

  async #handOver(index: number, found: OpenExport): Promise<boolean> {
    const { kernel, family, wish } = this.#way
    const grown = found.sizeBytes > this.#sizeBytes
    const taken = await family.replaceDead({
      ...{ index, backend: backendText(wish) },
      sockets: descriptorsOf(kernel, { server: this.#server!, open: [found] }),
      ...(grown ? { sizeBytes: found.sizeBytes } : {}),
    })
    if (taken && grown) this.#sizeBytes = found.sizeBytes
    return taken
  }

  /** The server it was connected to last comes first: another one may not open the disk while that one has it. */
  async #dialAny(): Promise<OpenExport> {
    const { servers, exportName } = this.#way.wish
    const others = servers.filter((one) => one !== this.#server)
    const reasons: string[] = []
    for (const server of [this.#server!, ...others]) {
      try {
        const found = await dial(this.#context.world, server, this.#way.wish)
        if (found.sizeBytes < this.#sizeBytes) {
          found.connection.destroy()
          throw new DialFailed('refused', `${exportName} is smaller than the device: not connected`)
        }
        this.#server = server
        return found
      } catch (error) {
        if (!(error instanceof DialFailed)) throw error
        reasons.push(`${addressText(server)}: ${error.message}`)
      }
    }
    throw new DialFailed('unreachable', reasons.join('; '))
  }

  /** Ends early with the next event. */
  async #rest(milliseconds: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.#context.world.clock.after(milliseconds, resolve)
      this.#wake = () => {
        cancel()
        resolve()
      }
    })
    this.#wake = () => undefined
  }

  /** Each new thing once, to who reads stderr and to the system's log. A log that hangs must not hold up a connection. */
  #say(index: number, what: string): Promise<void> {
    if (what === this.#lastWords) return Promise.resolve()
    this.#lastWords = what
    const { out, io } = this.#context
    const line = `/dev/nbd${index}: ${what}`
    out.error(line)
    return io.record(line, undefined).catch((error: unknown) => {
      out.error(`Failed to log: ${errnoText(error)}`)
    })
  }
}
