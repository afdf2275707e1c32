/** The NBD door: listens, and keeps the clients it let in. */
import { BufferPool } from '../../base/buffer-pool.js'
import type { Log } from '../../base/log.js'
import type { VolumeSource } from '../../volume/volume.js'
import { NBD_LIMITS } from '../../wire/nbd/constants.js'
import type { Address, Connection, PassedSocket, World } from '../../world/world.js'
import type { RuleBook } from './access.js'
import { NbdClient, type TlsDoor } from './connection.js'
import { NO_RULES } from './export-rules.js'
import { NbdHall } from './hall.js'

export interface NbdServerOptions {
  readonly world: Pick<World, 'clock' | 'network'>
  readonly log: Log
  readonly source: VolumeSource
  /** Port 0 picks a free one. */
  readonly address: Address | PassedSocket
  readonly tls?: TlsDoor | undefined
  /** Who may have which export; everybody everything when absent. */
  readonly rules?: RuleBook
  /** Shared with the other listeners of the same daemon; one of its own when absent. */
  readonly hall?: NbdHall
}

export interface NbdConnectionInfo {
  readonly remote: string
  /** Undefined during the handshake. */
  readonly exportName: string | undefined
  readonly requestsInFlight: number
}

export interface NbdServer {
  /** Where it listens. */
  readonly address: Address
  /**
   * Stops accepting, finishes the requests at work, answers new ones ESHUTDOWN, closes; clients that are too slow for
   * that (`drainMs`) lose their connections. Resolves when every volume has been handed back.
   */
  close(): Promise<void>
  connections(): NbdConnectionInfo[]
}

/** Rejects when the address cannot be listened at. */
export async function startNbdServer(options: NbdServerOptions): Promise<NbdServer> {
  const { world, log, source, tls, rules = { current: NO_RULES } } = options
  const hall = options.hall ?? new NbdHall(world.clock)
  const memory = new BufferPool()
  const clients = new Set<NbdClient>()
  let closing = false
  let emptied: (() => void) | undefined
  /** Of a socket that was passed in it is known when it listens, before anybody is accepted. */
  let isTcp = 'port' in options.address

  const accept = (connection: Connection): void => {
    // Gone before it was looked at; without an address it would pass for a local one.
    if (isTcp && connection.remoteHost === undefined) {
      connection.destroy()
      return
    }
    const refusal = hall.refusalFor(connection.remoteHost)
    // Who is too many is told so, unless those who have to be told are too many themselves.
    if (closing || (refusal !== undefined && hall.refusing >= NBD_LIMITS.refusedAtOnceMax)) {
      if (!closing) log.warn('nbd.connections.full', { remote: connection.remote })
      connection.destroy()
      return
    }
    const client = new NbdClient({
      connection,
      clock: world.clock,
      log,
      source,
      rules,
      hall,
      memory,
      refusal,
      tls,
      gone: () => {
        clients.delete(client)
        if (clients.size === 0) emptied?.()
      },
    })
    clients.add(client)
  }

  const listener = await world.network.listen(options.address, accept)
  isTcp = 'port' in listener.address
  log.info('nbd.listening', addressFields(listener.address))
  const shutDown = async (): Promise<void> => {
    closing = true
    // Not awaited yet: a listener may wait for its connections, and those end below.
    const stopped = listener.close()
    const empty = new Promise<void>((resolve) => {
      emptied = resolve
    })
    for (const client of [...clients]) client.shutdown()
    const cancel = world.clock.after(hall.limits.drainMs, () => {
      for (const client of [...clients]) client.cutOff()
    })
    if (clients.size > 0) await empty
    cancel()
    await stopped
  }
  let closed: Promise<void> | undefined
  return {
    address: listener.address,
    close: () => {
      closed ??= shutDown()
      return closed
    },
    connections: () =>
      Array.from(clients, ({ remote, exportName, requestsInFlight }) => ({
        remote,
        exportName,
        requestsInFlight,
      })),
  }
}

function addressFields(address: Address): Record<string, string | number> {
  return 'path' in address ? { path: address.path } : { host: address.host, port: address.port }
}
