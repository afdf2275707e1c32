/** The real machine. */
import { type Log, silentLog } from '../../base/log.js'
import type { World } from '../world.js'
import { NodeClock } from './clock.js'
import { NodeFiles } from './files.js'
import { nativeOrPortable } from './native.js'
import { NodeNetwork } from './network.js'
import { NodeRandom } from './random.js'
import { fastestStrips } from './strips.js'

/** `log` hears what no caller can be told.  */
export function nodeWorld(log: Log = silentLog): World {
  return {
    clock: new NodeClock(),
    random: new NodeRandom(),
    network: new NodeNetwork(log),
    files: new NodeFiles(nativeOrPortable(log)),
    strips: fastestStrips(log),
  }
}
