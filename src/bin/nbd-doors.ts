/** The NBD doors of a process: at the sockets it was passed, and where its options say besides. */
import type { Log } from '../base/log.js'
import type { RuleBook } from '../doors/nbd/access.js'
import type { NbdHall } from '../doors/nbd/hall.js'
import { startNbdServer } from '../doors/nbd/server.js'
import type { VolumeSource } from '../volume/volume.js'
import { tlsServer } from '../world/node/tls.js'
import type { Address, PassedSocket, World } from '../world/world.js'
import { everywhere, named } from './listening.js'
import { covers } from './service/listen-places.js'
import type { SheepOptions } from './sheep-options.js'

export interface NbdDoors {
  readonly world: Pick<World, 'clock' | 'network'>
  readonly log: Log
  readonly source: VolumeSource
  readonly rules: RuleBook
  readonly hall: NbdHall
  readonly options: SheepOptions
  /** Each one is put there as soon as it is open, so that it can be closed whatever happens to the next. */
  readonly doors: { close(): Promise<void> }[]
}

/** Rejects with an Error for people. */
export async function openNbdDoors({ options, doors, ...parts }: NbdDoors): Promise<void> {
  const { nbdTls, sockets, bindAddress } = options
  const tls = nbdTls && { isRequired: nbdTls.isRequired, server: tlsServer(nbdTls) }
  const open = async (address: Address | PassedSocket): Promise<Address> => {
    const door = await startNbdServer({ ...parts, tls, address })
    doors.push(door)
    return door.address
  }
  const passed: Address[] = []
  for (const fd of sockets.nbd) passed.push(await open({ fd }))
  for (const at of options.nbd) {
    const address = 'path' in at ? at : everywhere(at.host || bindAddress, at.port)
    if (passed.some((one) => covers(one, address))) continue
    const what = 'path' in at ? `NBD socket ${at.path}` : `NBD port ${at.port}`
    await named(what, open(address))
  }
}
