/** How the nodes of a fault run find each other and reach each other, by driver. */
import type { Cables } from './fault-cluster.js'
import type { Networks } from './networks.js'

/** Where one node lives. */
export interface Home {
  readonly host?: string
  readonly inside?: readonly string[]
}

export interface Meeting {
  /** What `-c` gets. `directory` is the run's own. */
  readonly driver: (directory: string) => Promise<string>
  readonly place: (node: number) => Home
  /** Undefined: the nodes share one host's network and cannot be cut off. */
  readonly cables: Cables | undefined
  /** How long a node is paused or cut, in seconds: at least, at most. */
  readonly awaySeconds: readonly [number, number]
}

/** A directory all nodes see. A node that is paused or cut stays a member, so everybody waits for it. */
export function localMeeting(networks?: Networks): Meeting {
  return {
    driver: async (directory) => `local:${directory}/meeting`,
    place: (node) => networks?.homes[node] ?? {},
    cables: networks?.cables,
    awaySeconds: [1, 5],
  }
}
