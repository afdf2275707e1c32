/** How the nodes of a fault run find each other and reach each other, by driver. */
import { startCorosync } from '../real/support/corosync.js'
import type { Owner } from '../real/support/owner.js'
import { startEnsemble } from '../real/support/zookeeper.js'
import type { Cables, Services } from './fault-cluster.js'
import { HUB_HOST, type Networks } from './networks.js'

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
  /** Of each node's host, and of all. */
  readonly daemons?: Services
  readonly servers?: Services
  /** How long a node is paused or cut, in seconds: at least, at most. */
  readonly awaySeconds: readonly [number, number]
  /** A client that gets no answer for this long, without a fault of its gateway, has met a defect. */
  readonly patienceSeconds: number
}

/** A directory all nodes see. A node that is paused or cut stays a member, so everybody waits for it. */
export function localMeeting(networks?: Networks): Meeting {
  return {
    driver: async (directory) => `local:${directory}/meeting`,
    place: (node) => networks?.homes[node] ?? {},
    cables: networks?.cables,
    awaySeconds: [1, 5],
    patienceSeconds: 30,
  }
}

/**
 * A corosync on each host. A cut host loses its peers but not its clients: whoever asks it must not be
 * served anything the others may have changed meanwhile. So does one whose corosync dies.
 */
export async function corosyncMeeting(owner: Owner, hosts: number): Promise<Meeting> {
  const ring = await startCorosync(owner, { hosts })
  const all = ring.hosts.map(({ index }) => index)
  const others = (node: number): number[] => all.filter((index) => index !== node)
  return {
    driver: async () => 'corosync',
    place: (node) => {
      const { address, inside } = ring.host(node)
      return { host: address, inside }
    },
    cables: {
      clientsStay: true,
      cut: (node) => ring.cut([node], others(node)),
      heal: (node) => ring.heal([node], others(node)),
    },
    daemons: {
      count: hosts,
      kill: (node) => ring.host(node).kill(),
      start: (node) => ring.host(node).start(),
    },
    awaySeconds: [2, 20],
    // Each fault costs the ring some seconds to form anew and four more to believe it; they come in rows.
    patienceSeconds: 60,
  }
}

/** Shorter than production's, not shorter than a loaded machine stands. */
const SESSION_SECONDS = 6

/**
 * An ensemble of three that all hosts reach. A cut node loses it with everything else; pauses and cuts are
 * shorter than a session as well as longer. One of its servers may die; the other two serve everybody.
 */
export async function zookeeperMeeting(owner: Owner, networks: Networks): Promise<Meeting> {
  const ensemble = await startEnsemble(owner, 3, HUB_HOST)
  const { homes, cables } = networks
  return {
    driver: async () => ensemble.choice('/faults', `${SESSION_SECONDS}s`),
    place: (node) => homes[node] ?? {},
    cables,
    servers: {
      count: ensemble.servers.length,
      kill: (index) => ensemble.server(index).kill(),
      start: async (index) => {
        ensemble.server(index).begin()
        await ensemble.server(index).serves()
      },
    },
    awaySeconds: [2, 3 * SESSION_SECONDS],
    // Each death is noticed after a session, and they come in rows.
    patienceSeconds: 60,
  }
}
