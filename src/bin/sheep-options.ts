/** The command line of `sheep` (cluster spec, section 2.1), checked. */

import { isIP } from 'node:net'
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { LOG_LEVELS, type LogLevel } from '../base/log.js'
import { NO_TARGET_RULES, type TargetRules } from '../doors/iscsi/target-rules.js'
import { type ExportRules, NO_RULES } from '../doors/nbd/export-rules.js'
import type { HallLimits } from '../doors/nbd/hall.js'
import type { RecoveryPlan } from '../sheep/recovery/plan.js'
import type { Role } from '../sheep/role.js'
import type { RecoveryThrottling } from '../wire/sheepdog/records.js'
import {
  LOG_DESTINATIONS,
  LOG_FORMATS,
  type LogDestination,
  type LogFormat,
} from '../world/node/log.js'
import { tlsServer } from '../world/node/tls.js'
import type { Address } from '../world/world.js'
import { type CachePlan, cachePlan } from './cache-option.js'
import type { ClusterChoice } from './cluster-driver.js'
import {
  addConfigOptions,
  type ConfigGiven,
  type UsedConfig,
  type WithConfig,
  withConfigFile,
} from './config-option.js'
import { addFrontOption, checkFront, type HostAndPort } from './front-option.js'
import { type IoAddress, ioAddress } from './io-option.js'
import { addIscsiOptions, type IscsiAddress, type IscsiGiven } from './iscsi-options.js'
import { addNbdOptions, type NbdGiven, type NbdTls, nbdLimitsOf, nbdTlsOf } from './nbd-options.js'
import { oneOf, portNumber, wholeNumber } from './option-values.js'
import { recoveryThrottling } from './recovery-option.js'
import { type DoorSockets, NO_SOCKETS } from './service/activation.js'

const PORT_DEFAULT = 7000
const PATH_DEFAULT = '/tmp'

export interface LogPlan {
  readonly level: LogLevel
  readonly format: LogFormat
  readonly destination: LogDestination
  readonly dir: string | undefined
}

export interface SheepOptions {
  readonly metaDirectory: string
  readonly disks: readonly string[]
  /** Undefined: all addresses. */
  readonly bindAddress: string | undefined
  readonly port: number
  /** Name or address to announce; undefined: what the cluster driver thinks. */
  readonly announcedAddress: string | undefined
  readonly zone: number | undefined
  /** On the network other nodes send data over; undefined: there is only one. */
  readonly io: IoAddress | undefined
  /** Undefined: the default driver. */
  readonly cluster: ClusterChoice | undefined
  readonly foreground: boolean
  readonly log: LogPlan
  readonly durable: boolean
  readonly pidFile: string | undefined
  readonly nbd: readonly Address[]
  /** Sheep of the cluster whose disks are served; undefined: this is a member itself. */
  readonly front: readonly HostAndPort[] | undefined
  readonly iscsi: readonly IscsiAddress[]
  /** What the service manager opened instead. */
  readonly sockets: DoorSockets
  /** Undefined: NBD in the clear. */
  readonly nbdTls: NbdTls | undefined
  readonly nbdLimits: HallLimits
  /** As of the start; `config.reread` has newer ones. */
  readonly nbdRules: ExportRules
  readonly targetRules: TargetRules
  /** Undefined: there is no configuration file. */
  readonly config: UsedConfig | undefined
  readonly role: Role
  /** Options of sheepdog 1.0 that were given and mean nothing here: the daemon starts all the same. */
  readonly ignored: readonly string[]
  readonly recovery: RecoveryPlan
  /** Undefined: no object cache. */
  readonly cache: CachePlan | undefined
}

/** What the command line asks for: to run, or just to print (help, version, an error). */
export type Parsed =
  | { readonly kind: 'run'; readonly options: SheepOptions }
  | { readonly kind: 'exit'; readonly status: number }

/** Options of sheepdog 1.0 this release does not have: refused by name, never ignored. */
const NOT_SERVED: Readonly<Record<string, string>> = {
  '-D, --directio': 'direct I/O',
  '-j, --journal <options>': 'the journal',
  '-r, --http <options>': 'the HTTP front end',
  '-u, --upgrade': 'upgrading a store in place',
}

/** Options that only tune what this daemon does not have: command lines that carry them keep working. */
const WITHOUT_MEANING: Readonly<Record<string, string>> = {
  '--wq-threads <options>': 'there are no work queues to size',
  '-x, --max-dynamic-threads <number>': 'there are no work queues to size',
}

function numericAddress(text: string): string {
  if (isIP(text) !== 0) return text
  throw new InvalidArgumentError('it must be a numeric IPv4 or IPv6 address.')
}

function logPlan(text: string): Partial<LogPlan> {
  let plan: Partial<LogPlan> = {}
  for (const part of text.split(',')) {
    const [key, value = ''] = part.split(/=(.*)/s)
    if (key === 'level') plan = { ...plan, level: oneOf(LOG_LEVELS, 'level')(value) }
    else if (key === 'format') plan = { ...plan, format: oneOf(LOG_FORMATS, 'format')(value) }
    else if (key === 'dst') plan = { ...plan, destination: oneOf(LOG_DESTINATIONS, 'dst')(value) }
    else if (key === 'dir' && value !== '') plan = { ...plan, dir: value }
    else throw new InvalidArgumentError(`'${part}' is none of level=, dir=, format=, dst=.`)
  }
  if (plan.dir !== undefined && (plan.destination ?? 'default') !== 'default') {
    throw new InvalidArgumentError('dir= goes with dst=default only.')
  }
  return plan
}

interface Given extends NbdGiven, IscsiGiven, ConfigGiven {
  bindaddr?: string
  cluster?: string
  foreground?: boolean
  log?: Partial<LogPlan>
  nosync?: boolean
  port: number
  pidfile?: string
  myaddr?: string
  zone?: number
  ioaddr?: IoAddress
  recovery?: RecoveryThrottling
  wildcardRecovery?: boolean
  gateway?: boolean
  front?: HostAndPort[]
  vnodes?: number
  cache?: CachePlan
}

const DRIVERS_HELP =
  'how nodes find each other: corosync[:ADDRESS] (the default), ' +
  'zookeeper:HOST[:PORT][,HOST[:PORT]...][/CLUSTER][,timeout=10s], or local[:NAME|:DIRECTORY] on one host'

/** Also what the manual and completion are held against. `ignored` is told of options without a meaning. */
export function sheepCommand(version: string, ignored: string[]): Command {
  const program = new Command('sheep')
    .description('Sheepdog daemon: stores objects, and serves disks from them.')
    .usage('[options] [PATH[,DISK...]]')
    .argument('[PATH]', `store directory, then directories for objects, by commas`, PATH_DEFAULT)
    .option('-b, --bindaddr <address>', 'listen at this address only', numericAddress)
    .option('-c, --cluster <driver>', DRIVERS_HELP)
    .option('-f, --foreground', 'stay in the foreground')
    .option('-g, --gateway', 'store nothing: serve disks from the other nodes only')
    .option(
      '-i, --ioaddr <address>',
      'host=A[,port=P]: listen there too, for the data of other nodes (a second network)',
      ioAddress,
    )
    .option('-l, --log <options>', 'level=,dir=,format=default|server|json,dst=', logPlan)
    .option('-n, --nosync', 'never sync: a power cut may lose anything')
    .option('-p, --port <port>', 'port of the sheepdog protocol', portNumber, PORT_DEFAULT)
    .option('-P, --pidfile <path>', 'write the process id to this file')
    .option(
      '-R, --recovery <options>',
      'max=N,interval=MS: begin at most N objects of background recovery in MS milliseconds',
      recoveryThrottling,
    )
    .option(
      '-V, --vnodes <number>',
      'a fixed number of vnodes (default: computed from disk space)',
      wholeNumber('the number of vnodes', 1, 65535),
    )
    .option(
      '-w, --cache <options>',
      'size=S[,dir=D][,directio]: cache objects of write-back clients on a disk of this machine ' +
        '(directio: past its page cache)',
      cachePlan,
    )
    .option(
      '-W, --wildcard-recovery',
      'the first recovery asks every node for every replicated object (coded ones as ever)',
    )
    .option('-y, --myaddr <address>', 'announce this address to the other nodes')
    .option('-z, --zone <id>', 'fault zone', wholeNumber('a zone', 0, 2 ** 32 - 1))
    .version(
      `Sheepdog daemon version ${version} (drivers: corosync, local, zookeeper; doors: sheepdog, nbd, iscsi)`,
      '-v, --version',
    )
    .allowExcessArguments(false)
    .exitOverride()
  addFrontOption(program)
  addNbdOptions(program)
  addIscsiOptions(program)
  addConfigOptions(program)
  for (const [flags, what] of Object.entries(NOT_SERVED)) {
    const option = program.createOption(flags).hideHelp()
    program.addOption(option)
    program.on(`option:${option.name()}`, () => {
      program.error(`error: option '${flags}': this release does not serve ${what}`, {
        exitCode: 1,
      })
    })
  }
  for (const [flags, why] of Object.entries(WITHOUT_MEANING)) {
    const option = program.createOption(flags).hideHelp()
    program.addOption(option)
    program.on(`option:${option.name()}`, () => ignored.push(`${flags}: ${why}`))
  }
  return program
}

function roleOf({ gateway, vnodes }: Given): Role {
  if (gateway === true) return { kind: 'gateway' }
  return vnodes === undefined ? { kind: 'automatic' } : { kind: 'fixed', vnodes }
}

function clusterChoice(text: string | undefined): ClusterChoice | undefined {
  if (text === undefined) return undefined
  const [, driver = '', option] = /^([^:]*)(?::(.*))?$/s.exec(text) ?? []
  return { driver, option }
}

/** Prints help, version and errors itself. */
export function parseSheepOptions(argv: readonly string[], version: string): Parsed {
  const ignored: string[] = []
  const program = sheepCommand(version, ignored)
  try {
    program.parse(argv, { from: 'user' })
    const config = withConfigFile(program, notServedKeys())
    for (const { option } of config.file?.settings ?? []) {
      const why = WITHOUT_MEANING[option.flags]
      if (why !== undefined) ignored.push(`${option.flags}: ${why}`)
    }
    const options = optionsOf(program, config, ignored)
    if (program.opts<Given>().checkConfig !== true) return { kind: 'run', options }
    if (options.nbdTls !== undefined) tlsServer(options.nbdTls)
    process.stdout.write(`${checkedText(config)}\n`)
    return { kind: 'exit', status: 0 }
  } catch (error) {
    if (error instanceof CommanderError) return { kind: 'exit', status: error.exitCode }
    process.stderr.write(`error: ${error instanceof Error ? error.message : String(error)}\n`)
    return { kind: 'exit', status: 1 }
  }
}

export function notServedKeys(): ReadonlyMap<string, string> {
  const named = Object.entries(NOT_SERVED).map(([flags, what]) => {
    const [, name = ''] = /--([\w-]+)/.exec(flags) ?? []
    return [name, what] as const
  })
  return new Map(named)
}

function checkedText({ file }: WithConfig): string {
  if (file === undefined) return 'the options are right; there is no configuration file'
  const { path, settings, rules, targets } = file
  const count = rules.rules === undefined ? 'no' : rules.rules.length
  const own = targets.rules === undefined ? '' : `, iSCSI target rules: ${targets.rules.length}`
  return `${path} is right: options: ${settings.length}, NBD export rules: ${count}${own}`
}

/** Throws an Error for people. */
function optionsOf(program: Command, { file, used }: WithConfig, ignored: string[]): SheepOptions {
  const given = program.opts<Given>()
  const [meta, ...disks] = (program.args[0] ?? file?.store ?? PATH_DEFAULT).split(',')
  if (meta === undefined || meta === '' || disks.includes('')) {
    throw new Error('PATH[,DISK...] has an empty part')
  }
  if (given.gateway === true && given.vnodes !== undefined) {
    throw new Error('a gateway (-g) has no vnodes: -V does not go with it')
  }
  if (given.front !== undefined) checkFront(program, disks)
  const nbdTls = nbdTlsOf(given)
  for (const option of ignored) process.stderr.write(`warning: option ignored: ${option}\n`)
  const destination = given.log?.destination ?? 'default'
  return {
    metaDirectory: meta,
    disks,
    bindAddress: given.bindaddr,
    port: given.port,
    announcedAddress: given.myaddr,
    zone: given.zone,
    io: given.ioaddr,
    cluster: clusterChoice(given.cluster),
    foreground: given.foreground === true || destination === 'stdout',
    log: {
      level: given.log?.level ?? 'info',
      format: given.log?.format ?? 'server',
      destination,
      dir: given.log?.dir,
    },
    durable: given.nosync !== true,
    pidFile: given.pidfile,
    nbd: given.nbd,
    front: given.front,
    iscsi: given.iscsi,
    sockets: NO_SOCKETS,
    nbdTls,
    nbdLimits: nbdLimitsOf(given),
    nbdRules: file?.rules ?? NO_RULES,
    targetRules: file?.targets ?? NO_TARGET_RULES,
    config: used,
    role: roleOf(given),
    ignored,
    recovery: { throttling: given.recovery, wildcard: given.wildcardRecovery },
    cache: given.cache,
  }
}
