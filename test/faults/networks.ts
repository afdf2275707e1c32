/**
 * Hosts on one machine: a network namespace for each node, joined by veth pairs to one bridge. The namespaces
 * have no names and end with the processes that hold them, so even a killed run leaves nothing behind;
 * all addresses are in them. Needs root and iproute2.
 *
 *     this process's own namespace            a node's namespace
 *     bridge 10.99.0.254 --- sheepN ========= eth0 10.99.0.(N + 1)
 *
 * A cut sets the bridge's port to "disabled": every packet to and from that host is lost, both ways, and
 * neither side is told, as when a switch dies.
 */
import { readlinkSync } from 'node:fs'
import type { Owner } from '../real/support/owner.js'
import { type Running, run, start, until } from '../real/support/run.js'
import type { Cables } from './fault-cluster.js'
import type { Home } from './meeting.js'

const BRIDGE = 'sheepbridge'
const NETWORK = '10.99.0'
/** Where the clients are, and services that all hosts share. */
export const HUB_HOST = `${NETWORK}.254`
const OWN_NAMESPACE = 'SHEEPDOG_TEST_NETWORK'
const READY_MS = 10_000

const PORT_DISABLED = '0'
const PORT_FORWARDING = '3'

export interface Networks {
  readonly homes: readonly Home[]
  readonly cables: Cables
}

/** True in a process that `enterOwnNamespace` has started. */
export function inOwnNamespace(): boolean {
  return process.env[OWN_NAMESPACE] === readlinkSync('/proc/self/ns/net')
}

/**
 * Runs this same command in a network namespace of its own and gives its exit code. Throws when that is not
 * possible here.
 */
export async function enterOwnNamespace(): Promise<number> {
  if (process.getuid?.() !== 0) throw new Error('network namespaces need root')
  const script = `export ${OWN_NAMESPACE}=$(readlink /proc/self/ns/net); ip link set lo up; exec "$@"`
  const self = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  const inside = start(['unshare', '--net', 'sh', '-c', script, 'sh', ...self])
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => inside.kill(signal))
  inside.child.stdout?.pipe(process.stdout)
  inside.child.stderr?.pipe(process.stderr)
  return (await inside.done).code
}

/** Makes `count` hosts; they end with the owner. */
export async function startNetworks(owner: Owner, count: number): Promise<Networks> {
  if (!inOwnNamespace()) throw new Error('networks are made only in a namespace of the run')
  await ip('link', 'add', BRIDGE, 'type', 'bridge')
  await ip('address', 'add', `${HUB_HOST}/24`, 'dev', BRIDGE)
  await ip('link', 'set', BRIDGE, 'up')
  const homes: Home[] = []
  for (let index = 0; index < count; index++) homes.push(await startHost(owner, index))
  const port = (node: number, state: string) =>
    run(['bridge', 'link', 'set', 'dev', portOf(node), 'state', state]).then(() => undefined)
  return {
    homes,
    cables: {
      clientsStay: false,
      cut: (node) => port(node, PORT_DISABLED),
      heal: (node) => port(node, PORT_FORWARDING),
    },
  }
}

async function startHost(owner: Owner, index: number): Promise<Home> {
  const holder: Running = start(['unshare', '--net', 'sleep', 'infinity'])
  owner.teardown(async () => {
    holder.kill('SIGKILL')
    await holder.done
  })
  const own = readlinkSync('/proc/self/ns/net')
  await until(`a namespace for node ${index}`, READY_MS, () => {
    return readlinkSync(`/proc/${holder.pid}/ns/net`) !== own
  })
  const inside = ['nsenter', '--target', `${holder.pid}`, '--net', '--']
  const peer = ['peer', 'name', 'eth0', 'netns', `${holder.pid}`]
  await ip('link', 'add', portOf(index), 'type', 'veth', ...peer)
  await ip('link', 'set', portOf(index), 'master', BRIDGE, 'up')
  const host = `${NETWORK}.${index + 1}`
  await run([...inside, 'ip', 'link', 'set', 'lo', 'up'])
  await run([...inside, 'ip', 'address', 'add', `${host}/24`, 'dev', 'eth0'])
  await run([...inside, 'ip', 'link', 'set', 'eth0', 'up'])
  return { host, inside }
}

function portOf(index: number): string {
  return `sheep${index}`
}

function ip(...words: readonly string[]) {
  return run(['ip', ...words])
}
