/** The options of the NBD door. */
import { type Command, InvalidArgumentError } from 'commander'
import { HALL_LIMITS, type HallLimits } from '../doors/nbd/hall.js'
import type { TlsFiles } from '../world/node/tls.js'
import type { Address } from '../world/world.js'
import { oneOf, portNumber, wholeNumber } from './option-values.js'

const NBD_PORT_DEFAULT = 10809
/** What the kernel's descriptors of a process allow anyway. */
const CONNECTIONS_MAX = 1_000_000
/** Timers of the event loop count no more than 24 days. */
const SECONDS_MAX = 1_000_000
const TLS_MODES = ['on', 'require'] as const

export interface NbdTls extends TlsFiles {
  /** Clients that do not ask for it are told nothing. */
  readonly isRequired: boolean
}

/** As commander hands them over. */
export interface NbdGiven {
  nbd: Address[]
  nbdTls?: (typeof TLS_MODES)[number]
  nbdTlsCertificates?: string
  nbdTlsPsk?: string
  nbdTlsVerifyPeer?: boolean
  nbdConnections?: number
  nbdConnectionsPerClient?: number
  nbdIdle?: number
  nbdDrain?: number
}

export function addNbdOptions(program: Command): Command {
  return program
    .option(
      '--nbd <where>',
      `serve disks by NBD at PORT, HOST[:PORT] or unix:PATH (port ${NBD_PORT_DEFAULT}); may repeat`,
      nbdAddress,
      [],
    )
    .option(
      '--nbd-tls <mode>',
      'on: NBD clients may encrypt; require: they must (the default when there are keys)',
      oneOf(TLS_MODES, 'the mode'),
    )
    .option(
      '--nbd-tls-certificates <directory>',
      'server-cert.pem and server-key.pem, as for QEMU and nbdkit',
    )
    .option('--nbd-tls-psk <file>', 'pre-shared keys of NBD clients, lines of NAME:KEY')
    .option('--nbd-tls-verify-peer', 'NBD clients must have a certificate of ca-cert.pem')
    .option(
      '--nbd-connections <number>',
      `NBD connections at once (default: ${HALL_LIMITS.connections})`,
      wholeNumber('it', 1, CONNECTIONS_MAX),
    )
    .option(
      '--nbd-connections-per-client <number>',
      `of one client address (default: ${HALL_LIMITS.connectionsPerClient})`,
      wholeNumber('it', 1, CONNECTIONS_MAX),
    )
    .option(
      '--nbd-idle <seconds>',
      'close NBD connections without a request for so long (default: never)',
      wholeNumber('it', 1, SECONDS_MAX),
    )
    .option(
      '--nbd-drain <seconds>',
      `when stopped, wait so long for NBD requests under way (default: ${HALL_LIMITS.drainMs / 1000})`,
      wholeNumber('it', 0, SECONDS_MAX),
    )
}

/** Throws an Error for people. */
export function nbdTlsOf(given: NbdGiven): NbdTls | undefined {
  const { nbdTls, nbdTlsCertificates, nbdTlsPsk, nbdTlsVerifyPeer = false } = given
  const hasKeys = nbdTlsCertificates !== undefined || nbdTlsPsk !== undefined
  if (!hasKeys && (nbdTls !== undefined || nbdTlsVerifyPeer)) {
    throw new Error('NBD over TLS needs --nbd-tls-certificates or --nbd-tls-psk')
  }
  if (nbdTlsVerifyPeer && nbdTlsCertificates === undefined) {
    throw new Error('--nbd-tls-verify-peer goes with --nbd-tls-certificates')
  }
  if (!hasKeys) return undefined
  return {
    isRequired: nbdTls !== 'on',
    certificates: nbdTlsCertificates,
    preSharedKeys: nbdTlsPsk,
    verifyPeer: nbdTlsVerifyPeer,
  }
}

export function nbdLimitsOf(given: NbdGiven): HallLimits {
  const { nbdConnections, nbdConnectionsPerClient, nbdIdle, nbdDrain } = given
  return {
    connections: nbdConnections ?? HALL_LIMITS.connections,
    connectionsPerClient: nbdConnectionsPerClient ?? HALL_LIMITS.connectionsPerClient,
    idleMs: nbdIdle === undefined ? HALL_LIMITS.idleMs : nbdIdle * 1000,
    drainMs: nbdDrain === undefined ? HALL_LIMITS.drainMs : nbdDrain * 1000,
  }
}

function nbdAddress(text: string, before: readonly Address[]): Address[] {
  return [...before, oneNbdAddress(text)]
}

function oneNbdAddress(text: string): Address {
  if (text.startsWith('unix:') && text.length > 'unix:'.length) {
    return { path: text.slice('unix:'.length) }
  }
  if (/^\d+$/.test(text)) return { host: '', port: portNumber(text) }
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:/]+))(?::(\d+))?$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined) {
    throw new InvalidArgumentError('it is PORT, HOST, HOST:PORT or unix:PATH.')
  }
  return { host, port: port === undefined ? NBD_PORT_DEFAULT : portNumber(port) }
}
