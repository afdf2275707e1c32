/** A network whose accepted connections can be ended at once, without a last word to anybody. */
import type { Connection, Network } from '../world/world.js'

export interface CuttableNetwork extends Network {
  /** Ends every connection that was accepted, and accepts no more. */
  cut(): void
}

export function cuttable(network: Network): CuttableNetwork {
  const accepted = new Set<Connection>()
  let isCut = false
  return {
    connect: (to, timeoutMs) => network.connect(to, timeoutMs),
    listen: (at, accept) =>
      network.listen(at, (connection) => {
        if (isCut) {
          connection.destroy()
          return
        }
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
        accept(connection)
      }),
    cut: () => {
      isCut = true
      for (const connection of accepted) connection.destroy()
      accepted.clear()
    },
  }
}
