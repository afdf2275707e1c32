/**
 * Block doors listen before their node is a member, so that an address somebody else has is known early. Who comes
 * meanwhile, the client for whose sake a service manager started the sheep among them, is answered when the node
 * is in, and is not turned away for something that takes a second.
 */
import type { VolumeSource } from '../volume/volume.js'

/** `source` from the moment `joined` resolves. */
export function untilJoined(source: VolumeSource, joined: Promise<void>): VolumeSource {
  const then = async <T>(ask: () => Promise<T>): Promise<T> => {
    await joined
    return ask()
  }
  return {
    list: () => then(() => source.list()),
    stat: (name) => then(() => source.stat(name)),
    open: (name) => then(() => source.open(name)),
    contexts: (name) => then(() => source.contexts(name)),
    context: (volume, name) => source.context(volume, name),
  }
}
