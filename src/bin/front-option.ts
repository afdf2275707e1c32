/** `--front`: a process that serves the disks of a cluster it is no member of. */
import { type Command, InvalidArgumentError } from 'commander'
import type { Address } from '../world/world.js'
import { portNumber } from './option-values.js'

const PORT_DEFAULT = 7000
const SHEEP_MAX = 64

/** What only makes sense for members, by the name commander keeps it under. */
const OF_MEMBERS: ReadonlyMap<string, string> = new Map([
  ['cluster', '-c'],
  ['gateway', '-g'],
  ['ioaddr', '-i'],
  ['iscsi', '--iscsi'],
  ['nosync', '-n'],
  ['port', '-p'],
  ['recovery', '-R'],
  ['vnodes', '-V'],
  ['cache', '-w'],
  ['wildcardRecovery', '-W'],
  ['myaddr', '-y'],
  ['zone', '-z'],
])

export type HostAndPort = Extract<Address, { readonly host: string }>

export function addFrontOption(program: Command): Command {
  return program.option(
    '--front <sheep>',
    'be no member: serve the disks of the cluster of these sheep, HOST[:PORT][,HOST[:PORT]...] ' +
      `(port ${PORT_DEFAULT}), by NBD; PATH has the log and a socket for dog nbd list`,
    frontAddresses,
  )
}

export function frontAddresses(
  text: string,
  before: readonly HostAndPort[] | undefined = [],
): HostAndPort[] {
  const addresses = [...before, ...text.split(',').map(oneAddress)]
  if (addresses.length <= SHEEP_MAX) return addresses
  throw new InvalidArgumentError(`these are more than ${SHEEP_MAX} sheep.`)
}

function oneAddress(text: string): HostAndPort {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:/\s]+))(?::(\d+))?$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined) throw new InvalidArgumentError(`'${text}' is not HOST[:PORT].`)
  return { host, port: port === undefined ? PORT_DEFAULT : portNumber(port) }
}

/** Throws an Error for people when something is given that a front does not have. */
export function checkFront(program: Command, disks: readonly string[]): void {
  const isGiven = (name: string): boolean => {
    const source = program.getOptionValueSource(name)
    return source !== undefined && source !== 'default'
  }
  for (const [name, flag] of OF_MEMBERS) {
    if (isGiven(name)) throw new Error(`--front is no member of the cluster: ${flag} is for those`)
  }
  if (disks.length > 0)
    throw new Error('--front stores nothing: PATH is one directory, for its log and a socket')
}
