/**
 * The world of one life of a node (revival.ts). Its clients' connections can be ended at once, without a last word
 * to anybody, and when it is over none of its timers runs any more: what it still meant to do is not done.
 */
import type { Connection, World } from '../world/world.js'

export interface OneLife {
  readonly world: World
  /** Ends every connection that was accepted, and accepts no more. */
  cut(): void
  /** Nothing of it happens any more. */
  end(): void
}

export function oneLife(real: World): OneLife {
  const { clock, network } = real
  const accepted = new Set<Connection>()
  let isCut = false
  let isOver = false
  const keep = (connection: Connection): void => {
    accepted.add(connection)
    const on = connection.on.bind(connection)
    connection.on = (events) =>
      on({
        data: (chunk) => events.data(chunk),
        drain: () => events.drain(),
        close: (error) => {
          accepted.delete(connection)
          events.close(error)
        },
      })
  }
  const world: World = {
    ...real,
    clock: {
      now: () => clock.now(),
      monotonic: () => clock.monotonic(),
      soon: (fn) => clock.soon(fn),
      after: (delayMs, fn) =>
        clock.after(delayMs, () => {
          if (!isOver) fn()
        }),
    },
    network: {
      connect: (to, timeoutMs) => network.connect(to, timeoutMs),
      listen: (at, accept) =>
        network.listen(at, (connection) => {
          if (isCut) {
            connection.destroy()
            return
          }
          keep(connection)
          accept(connection)
        }),
    },
  }
  return {
    world,
    cut: () => {
      isCut = true
      for (const connection of [...accepted]) connection.destroy()
      accepted.clear()
    },
    end: () => {
      isOver = true
    },
  }
}
