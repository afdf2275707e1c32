/** The corosync of this host, over native-bindings/cpg/cpg.c. */
import type {
  Arrival,
  Corosync,
  Departure,
  Group,
  GroupChange,
  GroupEvents,
  ProcessId,
  QuorumEvents,
} from '../corosync.js'
import { loadAddon } from './addon.js'

/** Statuses of libcpg (corotypes.h, cs_error_t). */
const CS_OK = 1
const CS_ERR_LIBRARY = 2
const CS_ERR_TRY_AGAIN = 6
const CS_ERR_ACCESS = 11
const CS_ERR_NOT_EXIST = 12
const CS_ERR_EXIST = 14
const CS_ERR_QUEUE_FULL = 23

/** Reasons of a change (cpg_initialize(3), cpg_reason_t). */
const DEPARTURES: Readonly<Record<number, Departure>> = { 2: 'left', 3: 'node-down', 5: 'died' }
const NODE_UP = 4

interface RawEvent {
  readonly bytes?: Buffer
  readonly nodeId?: number
  readonly pid?: number
  /** Node id, pid, reason, and so on. */
  readonly members?: readonly number[]
  readonly left?: readonly number[]
  readonly joined?: readonly number[]
}

type Port = { readonly port: unique symbol }
type Told = 'open' | 'events' | 'quorate' | 'closed'
type Callback = (what: Told, value: unknown) => void

interface Binding {
  join(group: string, callback: Callback): Port
  watchQuorum(callback: Callback): Port
  send(port: Port, parts: readonly Buffer[]): number
  close(port: Port): void
  localAddresses(): Promise<{ readonly status: number; readonly addresses: string[] }>
}

const INSTALL =
  'install corosync and its headers (Debian: apt-get install corosync libcpg-dev libquorum-dev libcfg-dev), ' +
  'then run `npm run build`'
const START =
  'start it (Debian: systemctl start corosync; its configuration is /etc/corosync/corosync.conf)'

/** Whether the binding was built; says nothing about the daemon. */
export function hasCorosyncBinding(): boolean {
  return loadAddon('cpg').absent === undefined
}

/** Throws an Error that names the remedy when the binding is missing or does not load. */
export function openCorosync(): Corosync {
  const { binding, absent } = loadAddon('cpg')
  if (absent === undefined) return new NativeCorosync(binding as Binding)
  throw new Error(`this sheep was built without corosync (${absent}): ${INSTALL}`)
}

class NativeCorosync implements Corosync {
  readonly #binding: Binding

  constructor(binding: Binding) {
    this.#binding = binding
  }

  join(group: string, events: GroupEvents): Group {
    const binding = this.#binding
    const port = binding.join(group, (what, value) => {
      if (what === 'open') events.opened({ nodeId: value as number, pid: process.pid })
      else if (what === 'closed') events.closed(describe(value as number))
      else tell(value as readonly RawEvent[], events)
    })
    return {
      send: (parts) => {
        const status = binding.send(port, parts)
        if (status === CS_OK) return 'sent'
        return status === CS_ERR_TRY_AGAIN || status === CS_ERR_QUEUE_FULL ? 'busy' : 'closed'
      },
      close: () => binding.close(port),
    }
  }

  watchQuorum(events: QuorumEvents): () => void {
    let hasProvider = false
    const port = this.#binding.watchQuorum((what, value) => {
      if (what === 'open') {
        hasProvider = value === 1
        if (!hasProvider) events.changed(undefined)
      } else if (what === 'closed') events.closed(describe(value as number))
      else if (hasProvider) events.changed(value as boolean)
    })
    return () => this.#binding.close(port)
  }

  async localAddresses(): Promise<string[]> {
    const { status, addresses } = await this.#binding.localAddresses()
    if (status !== CS_OK) throw new Error(describe(status))
    return addresses
  }
}

function tell(batch: readonly RawEvent[], events: GroupEvents): void {
  for (const { bytes, nodeId = 0, pid = 0, members = [], left = [], joined = [] } of batch) {
    if (bytes !== undefined) events.message({ nodeId, pid }, bytes)
    else events.changed(change(members, left, joined))
  }
}

function change(
  members: readonly number[],
  left: readonly number[],
  joined: readonly number[],
): GroupChange {
  return {
    members: triples(members).map(([process]) => process),
    // A reason nobody knows vouches for nothing.
    left: triples(left).map(([process, why]) => ({
      process,
      why: DEPARTURES[why] ?? 'node-down',
    })),
    joined: triples(joined).map(([process, why]) => ({
      process,
      why: (why === NODE_UP ? 'node-up' : 'joined') satisfies Arrival,
    })),
  }
}

function triples(flat: readonly number[]): [ProcessId, number][] {
  return Array.from({ length: flat.length / 3 }, (_, i) => {
    const [nodeId = 0, pid = 0, why = 0] = flat.slice(3 * i, 3 * i + 3)
    return [{ nodeId, pid }, why]
  })
}

function describe(status: number): string {
  switch (status) {
    case CS_ERR_LIBRARY:
      return `the corosync of this host does not run (any more): ${START}`
    case CS_ERR_TRY_AGAIN:
      return 'corosync has been busy with a membership change for too long'
    case CS_ERR_ACCESS:
      return 'corosync refuses this user: run as root, or allow it in /etc/corosync/uidgid.d'
    case CS_ERR_NOT_EXIST:
      return `corosync knows nothing of this node: ${START}`
    case CS_ERR_EXIST:
      return 'this process is in the group already'
    default:
      return `corosync answers with error ${status}`
  }
}
