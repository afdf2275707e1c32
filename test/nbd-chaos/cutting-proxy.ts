/**
 * Stands before an NBD door and ends connections where it likes: after a number of bytes that nobody knows, so in the middle of
 * headers and payloads, by a reset, by a close, or after having passed nothing on for a while.
 */
import {
  type AddressInfo,
  createConnection,
  createServer,
  type Server,
  type Socket,
} from 'node:net'
import type { Dice } from '../faults/dice.js'
import type { NbdPlace } from '../faults/nbd-client.js'

/** Bytes of both directions a connection lives for: from a handshake to some hundred requests. */
const BYTES_MIN_LOG2 = 9
const BYTES_SPREAD_LOG2 = 13
const STALL_MS_MIN = 50
const STALL_MS_SPREAD = 1_500

export interface CutCounts {
  connections: number
  resets: number
  closes: number
  stalls: number
}

export class CuttingProxy {
  readonly counts: CutCounts = { connections: 0, resets: 0, closes: 0, stalls: 0 }
  readonly #server: Server
  readonly #open = new Set<Socket>()

  /** Where clients find it; also after it has been closed. */
  readonly place: NbdPlace

  private constructor(server: Server, place: NbdPlace) {
    this.#server = server
    this.place = place
  }

  static async before(target: NbdPlace, dice: Dice): Promise<CuttingProxy> {
    const server = createServer({ allowHalfOpen: false })
    await new Promise<void>((resolve) => server.listen({ host: '127.0.0.1', port: 0 }, resolve))
    const { address, port } = server.address() as AddressInfo
    const proxy = new CuttingProxy(server, { host: address, port })
    server.on('connection', (client) => proxy.#carry(client, target, dice.fork()))
    return proxy
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#open) socket.destroy()
  }

  #carry(client: Socket, target: NbdPlace, dice: Dice): void {
    this.counts.connections++
    const server = createConnection({ ...target, noDelay: true })
    client.setNoDelay(true)
    const shift = BYTES_MIN_LOG2 + dice.below(BYTES_SPREAD_LOG2)
    let left = 2 ** shift + dice.below(2 ** shift)
    const both = [client, server] as const
    const pass = (to: Socket, from: Socket, chunk: Buffer): void => {
      if (left <= 0) return
      to.write(chunk.subarray(0, left))
      left -= chunk.length
      if (left <= 0) this.#cut(both, dice)
      else if (to.writableNeedDrain) {
        from.pause()
        to.once('drain', () => from.resume())
      }
    }
    client.on('data', (chunk: Buffer) => pass(server, client, chunk))
    server.on('data', (chunk: Buffer) => pass(client, server, chunk))
    for (const socket of both) {
      this.#open.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        this.#open.delete(socket)
        for (const other of both) other.destroy()
      })
    }
  }

  #cut(both: readonly Socket[], dice: Dice): void {
    const end = (): void => {
      if (dice.below(2) === 0) {
        this.counts.resets++
        for (const socket of both) socket.resetAndDestroy()
      } else {
        this.counts.closes++
        for (const socket of both) socket.end()
      }
    }
    if (dice.below(6) > 0) {
      end()
      return
    }
    this.counts.stalls++
    setTimeout(end, STALL_MS_MIN + dice.below(STALL_MS_SPREAD)).unref()
  }
}
