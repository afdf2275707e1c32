#!/usr/bin/env node
/** The process `sheepfs`: mounts, serves until it is unmounted or told to end. It is up when it has mounted. */
import { lookup } from 'node:dns/promises'
import { fileURLToPath } from 'node:url'
import { silentLog } from '../base/log.js'
import { dogMain } from '../dog/main.js'
import { type RemoteVolumes, remoteVolumes } from '../remote/remote-volumes.js'
import { FsError } from '../sheepfs/errors.js'
import { type FileSystem, serveFileSystem } from '../sheepfs/file-system.js'
import { Errno } from '../wire/fuse/constants.js'
import { NodeClock } from '../world/node/clock.js'
import { mountFuse } from '../world/node/fuse.js'
import { NodeImages } from '../world/node/images.js'
import { type NodeLog, openLog } from '../world/node/log.js'
import { NodeNetwork } from '../world/node/network.js'
import { packageVersion } from '../world/node/package.js'
import { NodeRandom } from '../world/node/random.js'
import type { Address } from '../world/world.js'
import { type Background, daemonise, isBackground, report } from './daemonise.js'
import { watchAnswers } from './service/answers.js'
import { serviceNotifier } from './service/service.js'
import { parseSheepfsOptions, type SheepfsOptions } from './sheepfs-options.js'

const SHEEPFS: Background = {
  name: 'sheepfs',
  entry: fileURLToPath(import.meta.url),
  mark: 'SHEEPFS_DAEMON',
  logPlace: 'syslog',
}
/** How long the cluster may take to answer before the mount is refused. */
const FIRST_ANSWER_MS = 10_000
/** What is open gets this long to be flushed when the mount ends; no sheep may be there any more. */
const END_MS = 10_000

/** Addresses of all sheep. The cluster must answer before anything is mounted: an empty tree would pass for an empty cluster. */
async function members(volumes: RemoteVolumes, { host, port }: SheepfsOptions): Promise<Address[]> {
  const clock = new NodeClock()
  let cancel = (): void => undefined
  const late = new Promise<never>((_, reject) => {
    cancel = clock.after(FIRST_ANSWER_MS, () => {
      reject(new Error(`no sheep answers at ${host}:${port}; is it running? (-a ADDRESS, -p PORT)`))
    })
  })
  try {
    return await Promise.race([volumes.access.members(), late])
  } finally {
    cancel()
  }
}

/** One run of dog inside of this process, at a sheep that answers; its words on stdout. */
async function dogText(sheep: Address, words: readonly string[]): Promise<string> {
  const pieces: Buffer[] = []
  const said: string[] = []
  const world = {
    clock: new NodeClock(),
    network: new NodeNetwork(silentLog),
    random: new NodeRandom(),
  }
  const nobody = async function* (): AsyncIterable<Buffer> {}
  const at = 'path' in sheep ? [] : ['-a', sheep.host, '-p', `${sheep.port}`]
  const status = await dogMain(
    [...words, ...at],
    {},
    {
      stdout: { isTTY: false, write: async (bytes) => void pieces.push(Buffer.from(bytes)) },
      stderr: { write: (text) => void said.push(String(text)) },
      stdin: nobody(),
      columns: 80,
      version: packageVersion(),
      resolve: async (name) => {
        const found = await lookup(name).catch(() => undefined)
        return found?.address
      },
      images: new NodeImages(),
      onInterrupt: () => () => undefined,
      record: async () => undefined,
    },
    world,
  )
  if (status !== 0) throw new FsError(Errno.EIO, said.join('').trim() || `status ${status}`)
  return Buffer.concat(pieces).toString()
}

function mount(options: SheepfsOptions, volumes: RemoteVolumes, log: NodeLog): FileSystem {
  const { mountPoint, readOnly, allowOther, defaultPermissions, flags, host, port } = options
  const sheep = `${host}:${port}`
  const device = mountFuse({
    ...{ mountPoint, readOnly, allowOther, defaultPermissions, flags, name: sheep },
  })
  log.info('mounted', { at: mountPoint, sheep })
  return serveFileSystem({
    ...{ device, volumes, log, readOnly, sheep },
    clock: new NodeClock(),
    uid: options.uid ?? process.getuid?.() ?? 0,
    gid: options.gid ?? process.getgid?.() ?? 0,
    pageCache: options.pageCache,
    dog: async (words) => dogText(await volumes.access.sheep(), words),
  })
}

async function run(options: SheepfsOptions, isDaemon: boolean): Promise<number> {
  const log = openLog({
    level: options.debug ? 'debug' : 'info',
    destination: isDaemon ? 'syslog' : 'stdout',
  })
  const world = {
    clock: new NodeClock(),
    network: new NodeNetwork(log),
    random: new NodeRandom(),
  }
  const { host, port, patienceMs, mountPoint } = options
  const first = { host, port }
  let status = (): string => `Looking for a sheep at ${host}:${port}`
  const service = serviceNotifier(process.env, () => status())
  let volumes = remoteVolumes({ world, log, addresses: [first], patienceMs })
  let fileSystem: FileSystem
  try {
    // When the one that was named dies, any other one will do.
    const others = (await members(volumes, options)).filter(
      (one) => 'path' in one || one.host !== host || one.port !== port,
    )
    volumes.end()
    volumes = remoteVolumes({ world, log, addresses: [first, ...others], patienceMs })
    fileSystem = mount(options, volumes, log)
  } catch (error) {
    volumes.end()
    const reason = error instanceof Error ? error.message : String(error)
    service.end(`Not mounted: ${reason}`)
    report(SHEEPFS, reason)
    return 1
  }
  const told = new Promise<undefined>((done) => {
    let signals = 0
    const onSignal = (): void => {
      // Asked twice: whoever asks has waited long enough.
      if (++signals > 1) process.exit(1)
      done(undefined)
    }
    process.on('SIGTERM', onSignal)
    process.on('SIGINT', onSignal)
  })
  report(SHEEPFS, undefined)
  const answers = watchAnswers(volumes.access, world.clock)
  status = () => (answers.come ? `Mounted at ${mountPoint}` : 'No sheep answers: files wait')
  service.ready(log)
  const reason = await Promise.race([fileSystem.over, told])
  service.stopping()
  answers.stop()
  if (reason !== undefined) log.error('mount.broken', { reason })
  return (await endInTime(fileSystem, log)) && reason === undefined ? 0 : 1
}

async function endInTime(fileSystem: FileSystem, log: NodeLog): Promise<boolean> {
  const late = new Promise<'late'>((done) => void new NodeClock().after(END_MS, () => done('late')))
  try {
    const outcome = await Promise.race([fileSystem.stop(), late])
    if (outcome === 'late') log.error('end.late', { reason: 'no sheep takes the last flush' })
    return outcome !== 'late'
  } catch (error) {
    log.error('end.failed', { reason: error instanceof Error ? error.message : String(error) })
    return false
  }
}

async function main(): Promise<number> {
  const parsed = parseSheepfsOptions(process.argv.slice(2), packageVersion())
  if (parsed.kind === 'exit') return parsed.status
  const isDaemon = isBackground(SHEEPFS)
  return parsed.options.foreground || isDaemon ? run(parsed.options, isDaemon) : daemonise(SHEEPFS)
}

process.exit(await main())
