/** The volumes of a cluster over the network: each opened one has a connection, and the lock that goes with it, of its own. */
import { volumeSource } from '../volume/source.js'
import type { Volume, VolumeSource } from '../volume/volume.js'
import { RemoteAccess, type RemoteOptions } from './remote-access.js'

/** A volume that is shared with nobody, and the access it has to itself. */
export interface OwnVolume {
  readonly volume: Volume
  readonly access: RemoteAccess
  /** Rejects when the last flush failed; it is closed all the same. */
  close(): Promise<void>
}

export interface RemoteVolumes extends VolumeSource {
  /** As `open`, for callers that do their own sharing. */
  openOwn(name: string): Promise<OwnVolume>
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
  const openOwn = async (name: string): Promise<OwnVolume> => {
    const own = new RemoteAccess(options)
    const close = (): void => {
      opened.delete(own)
      own.close()
    }
    opened.add(own)
    try {
      const alone = volumeSource({ objects: own, vdis: own, clock: world.clock, log })
      const volume = await alone.open(name)
      return { volume, access: own, close: () => volume.close().finally(close) }
    } catch (error) {
      close()
      throw error
    }
  }
  return {
    access,
    openOwn,
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
