/**
 * Hosts with two networks on one machine: a namespace each, with a cable to either of two bridges.
 *
 *     bridge main  x.y.z.254 ---- eth0  x.y.z.(N + 1)   a host's namespace
 *     bridge data            ---- eth1  x.y+100.z.(N + 1)
 *
 * A cut sets the bridge's port to "disabled": every packet is lost, both ways, and nobody is told. Needs root.
 */
import type { Owner } from './owner.js'
import { run, start, tryRun, until } from './run.js'

const READY_MS = 20_000
const DISABLED = '0'
const FORWARDING = '3'

export class TwoNetworkHost {
  readonly address: string
  readonly dataAddress: string
  /** Words that enter it. */
  readonly inside: readonly string[]
  readonly #cables: Readonly<Record<Network, string>>

  constructor(options: {
    readonly address: string
    readonly dataAddress: string
    readonly inside: readonly string[]
    readonly cables: Readonly<Record<Network, string>>
  }) {
    this.address = options.address
    this.dataAddress = options.dataAddress
    this.inside = options.inside
    this.#cables = options.cables
  }

  async cut(network: Network): Promise<void> {
    await bridgePort(this.#cables[network], DISABLED)
  }

  async heal(network: Network): Promise<void> {
    await bridgePort(this.#cables[network], FORWARDING)
  }

  /** Bytes the host has received on it so far. */
  async receivedBytes(network: Network): Promise<number> {
    const device = network === 'main' ? 'eth0' : 'eth1'
    const { stdout } = await run([...this.inside, 'cat', '/proc/net/dev'])
    const [, bytes] = new RegExp(`${device}:\\s*(\\d+)`).exec(stdout) ?? []
    if (bytes === undefined) throw new Error(`no ${device} in ${stdout}`)
    return Number(bytes)
  }
}

export type Network = 'main' | 'data'

/** The hosts and their networks end with the test. */
export async function startTwoNetworks(t: Owner, count: number): Promise<TwoNetworkHost[]> {
  const tag = `${process.pid % 100_000}`
  const [second, third] = [process.pid % 100, Math.floor(process.pid / 100) % 250]
  const nets = { main: `10.${second}.${third}`, data: `10.${second + 100}.${third}` }
  const bridges = { main: `sm${tag}`, data: `sd${tag}` }
  for (const network of ['main', 'data'] as const) {
    await run(['ip', 'link', 'add', bridges[network], 'type', 'bridge'])
    t.teardown(async () => void (await tryRun(['ip', 'link', 'del', bridges[network]])))
    await run(['ip', 'link', 'set', bridges[network], 'up'])
  }
  await run(['ip', 'addr', 'add', `${nets.main}.254/24`, 'dev', bridges.main])
  const hosts: TwoNetworkHost[] = []
  for (let index = 0; index < count; index++) {
    const holder = await openNamespace(t)
    const inside = ['nsenter', '-t', `${holder}`, '-n']
    const cables = { main: `${bridges.main}v${index}`, data: `${bridges.data}v${index}` }
    const addresses = { main: `${nets.main}.${index + 1}`, data: `${nets.data}.${index + 1}` }
    for (const network of ['main', 'data'] as const) {
      const device = network === 'main' ? 'eth0' : 'eth1'
      const peer = ['peer', 'name', device, 'netns', `${holder}`]
      await run(['ip', 'link', 'add', cables[network], 'type', 'veth', ...peer])
      // A namespace outlives its processes for a while when packets for it are still about.
      t.teardown(async () => void (await tryRun(['ip', 'link', 'del', cables[network]])))
      await run(['ip', 'link', 'set', cables[network], 'master', bridges[network], 'up'])
      await run([...inside, 'ip', 'addr', 'add', `${addresses[network]}/24`, 'dev', device])
      await run([...inside, 'ip', 'link', 'set', device, 'up'])
    }
    const { main: address, data: dataAddress } = addresses
    hosts.push(new TwoNetworkHost({ address, dataAddress, inside, cables }))
  }
  return hosts
}

async function openNamespace(t: Owner): Promise<number> {
  const script = 'ip link set lo up && echo ready && exec sleep 1000000'
  const holder = start(['unshare', '-n', 'sh', '-c', script])
  t.teardown(async () => {
    holder.kill('SIGKILL')
    await holder.done
  })
  let said = ''
  holder.child.stdout?.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  await until('a network namespace', READY_MS, () => said.includes('ready'))
  return holder.pid
}

async function bridgePort(cable: string, state: string): Promise<void> {
  await run(['bridge', 'link', 'set', 'dev', cable, 'state', state])
}
