/** The options of `dog nbd attach` that say how it is encrypted. */
import { resolve } from 'node:path'
import type { TlsKeys } from '../world/tls-client.js'
import { misused } from './failure.js'
import type { DogOptions, OptionSpec } from './options.js'

export const keyOption = {
  certificates: {
    long: 'tls-certificates',
    valued: true,
    help:
      'encrypt: directory with ca-cert.pem, and client-cert.pem and\n' +
      'client-key.pem where the server asks for them',
  },
  preSharedKeys: {
    long: 'tls-psk',
    valued: true,
    help: 'encrypt: file with pre-shared keys, lines of NAME:KEY',
  },
  user: {
    long: 'tls-user',
    valued: true,
    help: 'NAME in that file (default: the only one)',
  },
  hostname: {
    long: 'tls-hostname',
    valued: true,
    help: "whom the server's certificate must name (default: HOST)",
  },
} as const satisfies Record<string, OptionSpec>

/** Undefined: in the clear. Paths become whole ones: who dials again, or asks later, is somewhere else. Throws a Failure. */
export function keysOf(options: DogOptions): TlsKeys | undefined {
  const { tlsCertificates, tlsPsk, tlsUser, tlsHostname } = options
  if (tlsCertificates === undefined && tlsPsk === undefined) {
    if (tlsUser === undefined && tlsHostname === undefined) return undefined
    throw misused('--tls-user and --tls-hostname go with --tls-psk or --tls-certificates')
  }
  if (tlsCertificates !== undefined && tlsPsk !== undefined) {
    throw misused('Either --tls-certificates or --tls-psk: a connection has one kind of key')
  }
  if (tlsUser !== undefined && tlsPsk === undefined) {
    throw misused('--tls-user goes with --tls-psk: a certificate says itself whose it is')
  }
  if (tlsHostname !== undefined && tlsCertificates === undefined) {
    throw misused('--tls-hostname goes with --tls-certificates: keys name nobody')
  }
  return {
    ...(tlsCertificates !== undefined && { certificates: resolve(tlsCertificates) }),
    ...(tlsPsk !== undefined && { preSharedKeys: resolve(tlsPsk) }),
    ...(tlsUser !== undefined && { user: tlsUser }),
    ...(tlsHostname !== undefined && { hostname: tlsHostname }),
  }
}
