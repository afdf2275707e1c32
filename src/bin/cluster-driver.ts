/** Which cluster driver `-c` asks for (cluster spec, section 2.1), made. */
import { accessSync, constants } from 'node:fs'
import os from 'node:os'
import { resolve } from 'node:path'
import type { Log } from '../base/log.js'
import { corosyncDriver } from '../cluster/corosync/driver.js'
import type { ClusterDriver } from '../cluster/driver.js'
import { localDriver } from '../cluster/local/driver.js'
import { openZookeeperDriver } from '../cluster/zookeeper/driver.js'
import { parseZookeeperOptions } from '../cluster/zookeeper/options.js'
import { openCorosync } from '../world/node/corosync.js'
import type { World } from '../world/world.js'

/** What follows `-c`: `driver` or `driver:option`. */
export interface ClusterChoice {
  readonly driver: string
  readonly option: string | undefined
}

const DRIVERS = 'local[:NAME|:DIRECTORY], corosync[:ADDRESS], zookeeper:HOST[:PORT]...'

export interface DriverSetting {
  readonly world: World
  readonly log: Log
  /** The node was a member before: it waits for its cluster as long as it takes. */
  readonly isRevival: boolean
}

/** `choice` undefined: corosync, as in 1.0. Rejects with an Error that says what to do instead. */
export async function makeClusterDriver(
  choice: ClusterChoice | undefined,
  { world, log, isRevival }: DriverSetting,
): Promise<ClusterDriver> {
  if (choice === undefined) return defaultDriver({ world, log, isRevival })
  switch (choice.driver) {
    case 'local':
      return localDriver({ world, log, directory: localDirectory(choice.option ?? 'default') })
    case 'corosync':
      return corosyncDriver({ world, log, corosync: openCorosync(), isPatient: isRevival })
    case 'zookeeper':
      return openZookeeperDriver({
        ...{ world, log, isPatient: isRevival },
        ...parseZookeeperOptions(choice.option ?? ''),
      })
    default:
      throw new Error(`there is no cluster driver '${choice.driver}'; there are: ${DRIVERS}`)
  }
}

/** The address to announce that the choice names. */
export function addressOfChoice(choice: ClusterChoice | undefined): string | undefined {
  return choice?.driver === 'corosync' && choice.option !== '' ? choice.option : undefined
}

async function defaultDriver({ world, log, isRevival }: DriverSetting): Promise<ClusterDriver> {
  try {
    return await corosyncDriver({ world, log, corosync: openCorosync(), isPatient: isRevival })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(
      `no -c is given, and corosync, the default, cannot be used: ${reason}. ` +
        'Without corosync: -c zookeeper:HOST, or -c local for a cluster of this host alone',
      { cause: error },
    )
  }
}

/** A directory by name, or a path; of each user and each cluster its own, so that none disturbs another. */
function localDirectory(option: string): string {
  if (option.includes('/')) return resolve(option)
  const shared = `/dev/shm`
  const base = isWritable(shared) ? shared : os.tmpdir()
  return `${base}/sheepdog-${os.userInfo().uid}-${option}`
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK)
    return true
  } catch {
    return false
  }
}
