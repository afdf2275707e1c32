/** `-i host=A[,port=P]` (cluster spec, sections 2.1 and 15): the address on the data network. */
import { isIP } from 'node:net'
import { InvalidArgumentError } from 'commander'
import type { Address } from '../world/world.js'

const IO_PORT_DEFAULT = 7000

export interface IoAddress {
  readonly host: string
  readonly port: number
}

export function ioAddress(text: string): IoAddress {
  let host: string | undefined
  let port = IO_PORT_DEFAULT
  for (const part of text.split(',')) {
    const [key, value = ''] = part.split(/=(.*)/s)
    if (key === 'host' && isIP(value) !== 0 && !isEverywhere(value)) host = value
    else if (key === 'port' && /^\d{1,5}$/.test(value) && Number(value) > 0) port = Number(value)
    else if (part !== 'transport=tcp') {
      throw new InvalidArgumentError(`'${part}' is none of host=ADDRESS (numeric) and port=PORT.`)
    }
  }
  if (host === undefined) throw new InvalidArgumentError('host=ADDRESS is missing.')
  if (port > 65535) throw new InvalidArgumentError('a port is a number from 1 to 65535.')
  return { host, port }
}

/** Others could not connect to it. */
function isEverywhere(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

/** A listener of its own, unless the one on all addresses has the port already. */
export function ioListeners(
  io: IoAddress | undefined,
  main: { readonly bindAddress: string | undefined; readonly port: number },
): Address[] {
  if (io === undefined) return []
  const isCovered = main.bindAddress === undefined || main.bindAddress === io.host
  return isCovered && main.port === io.port ? [] : [io]
}
