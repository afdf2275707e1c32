/** The volumes of a cluster over the network: each opened one has a connection, and the lock that goes with it, of its own. */
import { volumeSource } from '../volume/source.js'
import type { VolumeSource } from '../volume/volume.js'
import { RemoteAccess, type RemoteOptions } from './remote-access.js'

export interface RemoteVolumes extends VolumeSource {
  /** For looking around, and for requests that are no volume's. */
  readonly access: RemoteAccess
  /** What is still open fails from now on. */
  end(): void
}

export function remoteVolumes(options: RemoteOptions): RemoteVolumes {
  const access = new RemoteAccess(options)
  const opened = new Set<RemoteAccess>()
  const { world, log } = options
  const source = volumeSource({
    ...{ objects: access, vdis: access, clock: world.clock, log },
    accessFor: () => {
      const own = new RemoteAccess(options)
      opened.add(own)
      return {
        objects: own,
        vdis: own,
        close: () => {
          opened.delete(own)
          own.close()
        },
      }
    },
  })
  return {
    access,
    list: () => source.list(),
    stat: (name) => source.stat(name),
    open: (name) => source.open(name),
    contexts: (name) => source.contexts(name),
    context: (volume, name) => source.context(volume, name),
    end: () => {
      for (const one of [...opened, access]) one.close()
    },
  }
}
