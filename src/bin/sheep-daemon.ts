/** Builds a sheep out of the real world and its parts, and takes it apart again. */

import { lookup } from 'node:dns/promises'
import { resolve } from 'node:path'
import { LOG_LEVELS } from '../base/log.js'
import type { ClusterDriver } from '../cluster/driver.js'
import { NbdHall } from '../doors/nbd/hall.js'
import type { PassedInitiators } from '../doors/sheepdog/context.js'
import type { LogLevelControl } from '../doors/sheepdog/log-level.js'
import { startSheepdogServer } from '../doors/sheepdog/server.js'
import { defaultZone, type SdNode } from '../model/node.js'
import { countedAccess } from '../sheep/counted-access.js'
import { learnFromDisk } from '../sheep/known-volumes.js'
import { SheepNode } from '../sheep/node.js'
import { PatientAccess } from '../sheep/patient-access.js'
import { configFor, refusalOfRole, weightOf } from '../sheep/role.js'
import { steadyFiles } from '../sheep/steady-files.js'
import { vdiAccess } from '../sheep/vdi-access.js'
import { encodeConfig, readConfig, writeConfig } from '../store/config.js'
import { openEpochLog } from '../store/epoch-log.js'
import { openInFlightLog } from '../store/in-flight-log.js'
import { lockStore } from '../store/lock.js'
import { openPlainStore } from '../store/plain-store.js'
import { volumeSource } from '../volume/source.js'
import type { NodeLog } from '../world/node/log.js'
import { nodeWorld } from '../world/node/world.js'
import { cacheOptions } from './cache-option.js'
import { addressOfChoice, makeClusterDriver } from './cluster-driver.js'
import { type ExportBook, exportBook } from './export-book.js'
import { ioListeners } from './io-option.js'
import { openIscsiDoors } from './iscsi-doors.js'
import { everywhere, named } from './listening.js'
import { openNbdDoors } from './nbd-doors.js'
import { oneLife } from './one-life.js'
import { type Ending, type Life, withRevivals } from './revival.js'
import { checkPort, portPlaces } from './service/listen-places.js'
import type { SheepStatus } from './service/status-line.js'
import type { SheepOptions } from './sheep-options.js'
import { makeStoreDirectory, openSheepLog } from './store-directory.js'
import { untilJoined } from './until-joined.js'

export interface RunningSheep {
  readonly log: NodeLog
  /** Resolves when the node is over, with the reason if it was not asked for. */
  readonly over: Promise<string | undefined>
  /** Reads the configuration file again, as far as it counts while the daemon runs. */
  reload(): void
  /** Finishes what is under way, leaves the cluster, syncs, closes. */
  stop(): Promise<void>
}

/** Rejects with an Error whose message tells a person what is wrong and what to do. */
export async function runSheep(options: SheepOptions, status: SheepStatus): Promise<RunningSheep> {
  const metaDirectory = makeStoreDirectory(options.metaDirectory)
  const log = openSheepLog(options, metaDirectory)
  for (const option of options.ignored) log.warn('option.ignored', { option })
  try {
    let { announcedAddress } = options
    const book = exportBook(options.nbdRules, options.config, log, options.targetRules)
    const begin = (isRevival: boolean): Promise<Life> => {
      const known = (host: string): void => {
        announcedAddress = host
      }
      const birth = { isRevival, known, book, status }
      return start({ ...options, announcedAddress }, metaDirectory, log, birth)
    }
    const sheep = await withRevivals(begin, log, nodeWorld(log).clock)
    return { log, reload: () => book.reload(), ...sheep }
  } catch (error) {
    log.error('start.failed', { reason: error instanceof Error ? error.message : String(error) })
    throw error
  }
}

interface Birth {
  readonly isRevival: boolean
  /** Called with the address that is announced. */
  readonly known: (host: string) => void
  readonly book: ExportBook
  /** Hears what it is doing. */
  readonly status: SheepStatus
}

async function start(
  options: SheepOptions,
  metaDirectory: string,
  log: NodeLog,
  { isRevival, known: announce, book, status }: Birth,
): Promise<Life> {
  status.doing('Opening the store')
  const { world: plain, cut, end } = oneLife(nodeWorld(log))
  const world = { ...plain, files: steadyFiles({ ...plain, log, metaDirectory }) }
  const lock = lockStore(world.files, metaDirectory)
  const known = readConfig(world.files, metaDirectory)
  const disks = options.disks.map((disk) => resolve(disk))
  const store = await openPlainStore({
    ...plain,
    log,
    metaDirectory,
    disks,
    durable: options.durable,
  })
  const { role } = options
  const config = configFor(role, known, store.spaceBytes)
  // Nobody knows what a crash left unsynced; a later flush must not promise more than it did.
  status.doing('Syncing what the last run may have left unsynced')
  if (known !== undefined && options.durable) await store.syncAll()
  status.doing(
    isRevival ? 'Coming back: the cluster went on without this node' : 'Joining the cluster',
  )
  const driver = await makeClusterDriver(options.cluster, { world, log, isRevival })
  const epochLog = await openEpochLog(world.files, metaDirectory)
  const self = { ...(await announced(options, driver)), ...weightOf(role, config) }
  // A node keeps its address over its lives, also while there is nobody to ask for it.
  announce(self.host)
  const lastNodes = epochLog.read(epochLog.latest())?.nodes ?? []
  const refusal = refusalOfRole({ role, config, self, lastNodes })
  if (refusal !== undefined) throw new Error(refusal)
  const isNews = known === undefined || !encodeConfig(known).equals(encodeConfig(config))
  if (isNews) await writeConfig(world.files, metaDirectory, config)
  const over = defer<Ending>()
  const node = new SheepNode({
    world,
    log,
    driver,
    store,
    config,
    metaDirectory,
    epochLog,
    self,
    recovery: options.recovery,
    cache: cacheOptions(options.cache, metaDirectory),
    inFlightLog: await openInFlightLog({
      ...{ files: world.files, log, metaDirectory },
      durable: options.durable,
    }),
    over: (reason, again = false) => {
      if (again) cut()
      if (again) status.doing(`Coming back: ${reason ?? 'the cluster went on without this node'}`)
      over.resolve({ reason, again })
    },
  })
  await learnFromDisk(node.state.vids, store, log)
  const passed: PassedInitiators = { take: undefined }
  const hall = new NbdHall(world.clock, options.nbdLimits)
  const server = await named(
    `port ${options.port}`,
    startSheepdogServer({
      world,
      log,
      addresses: [
        ...portPlaces(options.sockets.sheepdog, everywhere(options.bindAddress, options.port)),
        ...ioListeners(options.io, options),
        { path: `${metaDirectory}/sock` },
      ],
      context: {
        node,
        kill: () => over.resolve({ reason: undefined, again: false }),
        logLevel: logLevelControl(options, log),
        nbd: hall,
        iscsi: passed,
      },
    }),
  )
  const doors: { close(): Promise<void> }[] = []
  const isIn = defer<void>()
  // Who comes back waits for its cluster as long as it takes, and says so to clients.
  if (isRevival) isIn.resolve()
  const stop = async (): Promise<void> => {
    isIn.resolve()
    const closed = Promise.allSettled(doors.map((door) => door.close()))
    // Requests that wait for another node would hold the doors open for ever.
    const { drainMs } = options.nbdLimits
    const cancel = world.clock.after(drainMs, () => {
      log.warn('doors.close.late', {
        afterMs: drainMs,
        reason: 'requests wait for other nodes',
      })
      node.cutShort()
    })
    for (const result of await closed) {
      if (result.status === 'fulfilled') continue
      log.warn('door.close.failed', { reason: String(result.reason) })
    }
    cancel()
    await node.stop()
    await server.close()
    lock.release()
    end()
  }
  try {
    checkPort(options.sockets.sheepdog, server.addresses, options.port)
    const objects = countedAccess(new PatientAccess(node), node.stats)
    const vdis = vdiAccess(node)
    const volumes = volumeSource({
      objects,
      vdis,
      clock: world.clock,
      log,
    })
    const source = untilJoined(volumes, isIn.promise)
    await openNbdDoors({ ...{ world, log, source, rules: book, hall }, options, doors })
    const { targets } = book
    const parts = { world, log, node, objects, source, book: targets, options, doors }
    await openIscsiDoors({ ...parts, vdis, passed })
    const joined = node.join().then(() => {
      status.joined(node)
      isIn.resolve()
      log.info('node.up', { port: options.port, epoch: node.state.epoch, store: metaDirectory })
    })
    if (isRevival)
      joined.catch((error: Error) => over.resolve({ reason: error.message, again: false }))
    else await joined
  } catch (error) {
    await stop()
    throw error
  }
  return { over: over.promise, stop }
}

async function announced(
  options: SheepOptions,
  driver: ClusterDriver,
): Promise<Pick<SdNode, 'host' | 'port' | 'zone' | 'io'>> {
  const name = options.announcedAddress ?? addressOfChoice(options.cluster) ?? driver.localAddress()
  const host = await lookup(name).then(
    ({ address }) => address,
    (error: Error) => {
      throw new Error(`the address to announce, '${name}', is not known: ${error.message}`)
    },
  )
  const zone = options.zone ?? defaultZone(host)
  const { port, io } = options
  return { host, port, zone, ...(io !== undefined && { io }) }
}

function logLevelControl(options: SheepOptions, log: NodeLog): LogLevelControl {
  let level: number = LOG_LEVELS.indexOf(options.log.level)
  return {
    get: () => level,
    set: (wanted) => {
      const name = LOG_LEVELS[wanted]
      if (name === undefined) return false
      level = wanted
      log.setLevel(name)
      return true
    },
  }
}

function defer<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let resolvePromise: (value: T) => void = () => undefined
  const promise = new Promise<T>((done) => {
    resolvePromise = done
  })
  return { promise, resolve: (value) => resolvePromise(value) }
}
