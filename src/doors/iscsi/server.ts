/** The iSCSI door: listens, and keeps the sessions of the initiators it let in. */
import { BufferPool } from '../../base/buffer-pool.js'
import type { Log } from '../../base/log.js'
import type { VolumeSource } from '../../volume/volume.js'
import { ISCSI_LIMITS } from '../../wire/iscsi/constants.js'
import type { IscsiPath } from '../../wire/sheepdog/iscsi-path.js'
import type { Address, Connection, PassedSocket, World } from '../../world/world.js'
import { IscsiClient, type Lobby } from './connection.js'
import type { Visit } from './login.js'
import { type Elsewhere, ONLY_GROUP, portalsOf } from './paths.js'
import { NO_TARGET_RULES } from './target-rules.js'
import { type TargetBook, Targets } from './targets.js'
import { type ReservationStore, Units } from './units.js'

/** What all doors of one node share: two sessions with one volume share its logical unit. */
export interface IscsiShared {
  readonly source: VolumeSource
  readonly store: ReservationStore
  readonly book: TargetBook
  readonly units: Units
  /** Of all doors: an initiator that comes back by another one takes the place of its own session. */
  readonly clients: Set<IscsiClient>
  readonly group: number
  readonly elsewhere: Elsewhere | undefined
  /** Where doors of this node listen. */
  readonly listening: Set<Address>
  /** For answers and the data of writes. */
  readonly pool: BufferPool
}

export function iscsiShared(options: {
  readonly source: VolumeSource
  readonly store: ReservationStore
  readonly log: Log
  readonly book?: TargetBook
  /** Undefined: there are no other nodes. */
  readonly elsewhere?: Elsewhere | undefined
  /** Of this process, unlike any other's. */
  readonly life: string
  /** Overwrite memory that is given back: for tests. */
  readonly scribble?: boolean
  identity(): string
}): IscsiShared {
  const { source, store, elsewhere, book = { current: NO_TARGET_RULES } } = options
  const pool = new BufferPool({ scribble: options.scribble === true })
  const group = elsewhere?.group ?? ONLY_GROUP
  const isPresent = (one: number): boolean => elsewhere?.isPresent(one) ?? false
  const units = new Units({ ...options, group, isPresent })
  return {
    source,
    store,
    book,
    units,
    group,
    elsewhere,
    clients: new Set(),
    listening: new Set(),
    pool,
  }
}

export interface IscsiServerOptions {
  readonly world: Pick<World, 'clock' | 'network' | 'random'>
  readonly log: Log
  readonly shared: IscsiShared
  /** Port 0 picks a free one. */
  readonly address: Address | PassedSocket
}

export interface IscsiSessionInfo {
  readonly remote: string
  readonly initiator: string
  /** Undefined: a discovery session. */
  readonly target: string | undefined
}

export interface IscsiServer {
  /** Where it listens. */
  readonly address: Address
  /**
   * Stops accepting, asks initiators to log out, finishes the commands at work, closes. Resolves when every volume has
   * been handed back.
   */
  close(): Promise<void>
  sessions(): IscsiSessionInfo[]
  /** An initiator another node passes on. */
  take(connection: Connection, via: IscsiPath): void
}

/** Rejects when the address cannot be listened at. */
export async function startIscsiServer(options: IscsiServerOptions): Promise<IscsiServer> {
  const { world, log, shared } = options
  const { clock, random, network } = world
  const { clients, pool } = shared
  const own = new Set<IscsiClient>()
  let isTcp = 'port' in options.address
  let closing = false
  let lastTsih = 0
  let port: number | undefined

  const lobby: Lobby = {
    targets: new Targets({ ...shared, log }),
    group: shared.group,
    portals: (host) => portalsOf({ host, port }, shared.listening, shared.group),
    hasSession: (tsih) => [...clients].some((client) => client.tsih === tsih),
    replace: async (visit, by) => {
      const former = [...clients].filter((one) => one !== by && isSamePort(one, by, visit))
      for (const one of former) one.drop('its initiator logged in anew')
      await Promise.all(former.map((one) => one.over))
      return former.length > 0
    },
    nextTsih: () => {
      do lastTsih = (lastTsih % 0xffff) + 1
      while (lobby.hasSession(lastTsih))
      return lastTsih
    },
    coldReset: (target) => {
      for (const one of [...clients]) if (one.visit?.target === target) one.finish()
    },
  }

  const accept = (connection: Connection): void => {
    // Gone before it was looked at; without an address it would pass for a local one.
    if (isTcp && connection.remoteHost === undefined) {
      connection.destroy()
      return
    }
    begin(connection)
  }

  const begin = (connection: Connection, via?: IscsiPath): void => {
    if (closing || own.size >= ISCSI_LIMITS.connectionsMax) {
      if (!closing) log.warn('iscsi.connections.full', { remote: connection.remote })
      connection.destroy()
      return
    }
    const gone = (): void => {
      clients.delete(client)
      own.delete(client)
    }
    const client = new IscsiClient({ connection, clock, random, log, lobby, pool, via, gone })
    clients.add(client)
    own.add(client)
  }

  const listener = await network.listen(options.address, accept)
  const { address } = listener
  isTcp = 'port' in address
  if ('port' in address) port = address.port
  shared.listening.add(address)
  log.info('iscsi.listening', 'port' in address ? { host: address.host, port } : {})
  const shutDown = async (): Promise<void> => {
    closing = true
    shared.listening.delete(address)
    // Not awaited yet: a listener may wait for its connections, and those end below.
    const stopped = listener.close()
    const left = [...own]
    for (const client of left) client.shutdown()
    await Promise.all(left.map((client) => client.over))
    await stopped
  }
  let closed: Promise<void> | undefined
  return {
    address,
    close: () => {
      closed ??= shutDown()
      return closed
    },
    take: begin,
    sessions: () =>
      [...own].flatMap(({ remote, visit, tsih }) =>
        visit === undefined || tsih === 0
          ? []
          : [{ remote, initiator: visit.initiator, target: visit.target }],
      ),
  }
}

/** One initiator's port at one target: there is one session of it at a time (RFC 7143, section 6.3.5). */
function isSamePort(one: IscsiClient, other: IscsiClient, visit: Visit): boolean {
  if (one.visit?.target === undefined) return false
  return one.nexus === other.nexus && one.visit.target === visit.target
}
