/** The iSCSI doors of a process: at the sockets it was passed, and where its options say besides. */
import type { Log } from '../base/log.js'
import { elsewhere } from '../doors/iscsi/paths.js'
import { iscsiShared, startIscsiServer } from '../doors/iscsi/server.js'
import type { TargetBook } from '../doors/iscsi/targets.js'
import type { PassedInitiators } from '../doors/sheepdog/context.js'
import type { ObjectAccess, VdiAccess } from '../model/access.js'
import { attributeValues } from '../sheep/attribute-values.js'
import type { SheepNode } from '../sheep/node.js'
import type { VolumeSource } from '../volume/volume.js'
import type { Address, PassedSocket, World } from '../world/world.js'
import { everywhere, named } from './listening.js'
import { covers } from './service/listen-places.js'
import type { SheepOptions } from './sheep-options.js'

/** The attribute of a VDI that keeps reservations beyond a restart (APTPL). */
const RESERVATIONS_KEY = 'iscsi-reservations'

export interface IscsiDoors {
  readonly world: Pick<World, 'clock' | 'network' | 'random'>
  readonly log: Log
  readonly node: SheepNode
  readonly objects: ObjectAccess
  readonly source: VolumeSource
  readonly book: TargetBook
  readonly options: SheepOptions
  /** Each one is put there as soon as it is open, so that it can be closed whatever happens to the next. */
  readonly doors: { close(): Promise<void> }[]
  readonly vdis: VdiAccess
  /** Where initiators arrive that other nodes pass on. */
  readonly passed: PassedInitiators
}

/** Rejects with an Error for people. */
export async function openIscsiDoors(parts: IscsiDoors): Promise<void> {
  const { world, log, node, objects, source, book, options, doors, vdis } = parts
  const values = attributeValues(node, objects)
  const shared = iscsiShared({
    ...{ source, log, book, elsewhere: elsewhere(node, world, vdis) },
    life: world.random.bytes(8).toString('hex'),
    store: {
      load: (name) => values.load(name, RESERVATIONS_KEY),
      save: (name, value) => values.save(name, RESERVATIONS_KEY, value),
    },
    // When the cluster was formatted: the same on all its nodes, and no other cluster's.
    identity: () => node.state.settings.ctime.toString(16),
  })
  const open = async (address: Address | PassedSocket): Promise<Address> => {
    const door = await startIscsiServer({ world, log, shared, address })
    doors.push(door)
    parts.passed.take ??= (connection, via) => door.take(connection, via)
    return door.address
  }
  const passed: Address[] = []
  for (const fd of options.sockets.iscsi) passed.push(await open({ fd }))
  for (const at of options.iscsi) {
    const address = everywhere(at.host || options.bindAddress, at.port)
    if (passed.some((one) => covers(one, address))) continue
    await named(`iSCSI port ${at.port}`, open(address))
  }
}
