/** A connection whose events go another way than to the listener itself. */
import type { Connection } from './world.js'

/** `connection`, to which is written as before; who listens to the result is heard by `on`. */
export function heardThrough(connection: Connection, on: Connection['on']): Connection {
  return {
    remote: connection.remote,
    on,
    write: (bytes, sent) => connection.write(bytes, sent),
    writeAll: (pieces, sent) => connection.writeAll(pieces, sent),
    pause: () => connection.pause(),
    resume: () => connection.resume(),
    end: () => connection.end(),
    destroy: () => connection.destroy(),
  }
}
