/** The option of the iSCSI door. */
import { type Command, InvalidArgumentError } from 'commander'
import { portNumber } from './option-values.js'

const ISCSI_PORT_DEFAULT = 3260

export interface IscsiAddress {
  /** Empty: where the sheepdog protocol listens. */
  readonly host: string
  readonly port: number
}

/** As commander hands them over. */
export interface IscsiGiven {
  iscsi: IscsiAddress[]
}

export function addIscsiOptions(program: Command): Command {
  return program.option(
    '--iscsi <where>',
    `serve disks by iSCSI at PORT or HOST[:PORT] (port ${ISCSI_PORT_DEFAULT}); may repeat`,
    iscsiAddress,
    [],
  )
}

function iscsiAddress(text: string, before: readonly IscsiAddress[]): IscsiAddress[] {
  if (/^\d+$/.test(text)) return [...before, { host: '', port: portNumber(text) }]
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:/]+))(?::(\d+))?$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined) throw new InvalidArgumentError('it is PORT, HOST or HOST:PORT.')
  return [...before, { host, port: port === undefined ? ISCSI_PORT_DEFAULT : portNumber(port) }]
}
