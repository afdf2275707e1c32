/** The sheepdog protocol door: port 7000 and the socket in the store directory. */
import { BufferPool } from '../../base/buffer-pool.js'
import { LIMITS } from '../../base/limits.js'
import type { Log } from '../../base/log.js'
import { nodeKey } from '../../model/node.js'
import type { Address, Listener, PassedSocket, World } from '../../world/world.js'
import { admitting } from './admission.js'
import { CACHE_OPERATIONS } from './cache-ops.js'
import type { DoorContext, OperationContext, OperationTable } from './context.js'
import { Greetings } from './greetings.js'
import { ISCSI_OPERATIONS } from './iscsi-ops.js'
import { LOCK_OPERATIONS } from './lock-ops.js'
import { NBD_OPERATIONS } from './nbd-ops.js'
import { NODE_OPERATIONS } from './node-ops.js'
import { OBJECT_OPERATIONS } from './object-ops.js'
import { OneConnection } from './one-connection.js'
import { PEER_OPERATIONS } from './peer-ops.js'
import { RECOVERY_OPERATIONS } from './recovery-ops.js'
import { REPAIR_OPERATIONS } from './repair-ops.js'
import { SheepdogSession } from './session.js'
import { VOLUME_HEADS_OPERATIONS } from './volume-heads-ops.js'

export interface SheepdogServer {
  /** Where it listens, in the order of what it was given. */
  readonly addresses: readonly Address[]
  /** Stops listening, lets requests under way finish, and closes every connection. */
  close(): Promise<void>
}

export interface SheepdogServerOptions {
  readonly world: Pick<World, 'clock' | 'network'>
  readonly log: Log
  readonly context: DoorContext
  readonly addresses: readonly (Address | PassedSocket)[]
  /** For tests: memory of requests that have been answered is overwritten. */
  readonly scribble?: boolean
}

/** After this long connections that still have requests under way are cut. */
const CLOSE_TIMEOUT_MS = 5_000

const OPERATIONS: OperationTable = new Map([
  ...admitting(OBJECT_OPERATIONS),
  ...PEER_OPERATIONS,
  ...NODE_OPERATIONS,
  ...RECOVERY_OPERATIONS,
  ...REPAIR_OPERATIONS,
  ...LOCK_OPERATIONS,
  ...CACHE_OPERATIONS,
  ...NBD_OPERATIONS,
  ...VOLUME_HEADS_OPERATIONS,
  ...ISCSI_OPERATIONS,
])

/** Rejects with the listen error (EADDRINUSE, EACCES, ...) when one of the addresses is not to be had. */
export async function startSheepdogServer(options: SheepdogServerOptions): Promise<SheepdogServer> {
  const { world, scribble = false } = options
  const sessions = new Set<SheepdogSession>()
  const listeners: Listener[] = []
  const oneConnection = new OneConnection()
  const payloads = new BufferPool({ scribble })
  const context: OperationContext = { ...options.context, memory: payloads }
  const greetings = new Greetings(() => new Set(context.node.state.members.map(nodeKey)))
  let allGone: (() => void) | undefined
  const accept: Parameters<World['network']['listen']>[1] = (connection) => {
    if (sessions.size >= LIMITS.clientsMax) {
      options.log.warn('clients.full', { remote: connection.remote })
      connection.destroy()
      return
    }
    const session = new SheepdogSession({
      connection,
      context,
      operations: OPERATIONS,
      greetings,
      oneConnection,
      clock: world.clock,
      ended: (ended) => {
        sessions.delete(ended)
        if (sessions.size === 0) allGone?.()
      },
    })
    sessions.add(session)
  }
  try {
    for (const at of options.addresses) listeners.push(await world.network.listen(at, accept))
  } catch (error) {
    await Promise.all(listeners.map((listener) => listener.close()))
    throw error
  }
  return {
    addresses: listeners.map(({ address }) => address),
    close: async () => {
      await Promise.all(listeners.map((listener) => listener.close()))
      if (sessions.size === 0) return
      await new Promise<void>((resolve) => {
        const cancel = world.clock.after(CLOSE_TIMEOUT_MS, resolve)
        allGone = () => {
          cancel()
          resolve()
        }
        for (const session of [...sessions]) session.close()
      })
    },
  }
}
