/** The process `sheep`: arguments, daemonising, signals, pid file, exit status. It is up when it is a member of its cluster. */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { packageVersion } from '../world/node/package.js'
import { type Background, complain, daemonise, isBackground, report } from './daemonise.js'
import { runFront } from './front.js'
import { DOORS, forgetSockets, passedSockets } from './service/activation.js'
import { serviceNotifier } from './service/service.js'
import { SheepStatus } from './service/status-line.js'
import { type RunningSheep, runSheep } from './sheep-daemon.js'
import { parseSheepOptions, type SheepOptions } from './sheep-options.js'

const SHEEP: Background = {
  name: 'sheep',
  entry: fileURLToPath(new URL('./sheep.cjs', import.meta.url)),
  mark: 'SHEEPDOG_DAEMON',
  logPlace: 'sheep.log',
}

function writePidFile(path: string): void {
  const file = openSync(path, 'w', 0o600)
  writeSync(file, `${process.pid}\n`)
  closeSync(file)
}

function begin(options: SheepOptions, status: SheepStatus): Promise<RunningSheep> {
  const { front } = options
  return front === undefined ? runSheep(options, status) : runFront({ ...options, front }, status)
}

async function run(options: SheepOptions): Promise<number> {
  let sheep: RunningSheep
  let ask: (reason: string | undefined) => void = () => undefined
  const asked = new Promise<string | undefined>((resolve) => {
    ask = resolve
  })
  let signals = 0
  const onSignal = (): void => {
    // Asked twice: whoever asks has waited long enough.
    if (++signals > 1) process.exit(1)
    ask(undefined)
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  const status = new SheepStatus()
  const service = serviceNotifier(process.env, () => status.line())
  try {
    // A cluster may let this node wait; whoever gives up on that need not.
    const gaveUp = asked.then(() => Promise.reject(new Error('stopped before it was a member')))
    sheep = await Promise.race([begin(options, status), gaveUp])
    gaveUp.catch(() => undefined)
    if (options.pidFile !== undefined) writePidFile(options.pidFile)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    service.end(`Not started: ${reason}`)
    report(SHEEP, reason)
    return 1
  }
  process.on('SIGHUP', () => {
    service.reload(() => {
      sheep.log.reopen()
      sheep.reload()
    })
  })
  report(SHEEP, undefined)
  service.ready(sheep.log)
  const failure = await Promise.race([asked, sheep.over])
  service.stopping()
  await sheep.stop()
  service.end(failure === undefined ? 'Stopped' : `Failed: ${failure}`)
  if (options.pidFile !== undefined) rmSync(options.pidFile, { force: true })
  if (failure !== undefined) complain(SHEEP, failure)
  sheep.log.info('process.exit', { status: failure === undefined ? 0 : 1 })
  sheep.log.close()
  return failure === undefined ? 0 : 1
}

async function main(): Promise<number> {
  const parsed = parseSheepOptions(process.argv.slice(2), packageVersion())
  if (parsed.kind === 'exit') return parsed.status
  const isDaemon = isBackground(SHEEP)
  const { options } = parsed
  try {
    const sockets = passedSockets(process.env, process.pid)
    forgetSockets(process.env)
    if (options.foreground || isDaemon) return await run({ ...options, sockets })
    // The process that goes on would be another one than that they were passed to.
    if (DOORS.some((door) => sockets[door].length > 0)) {
      throw new Error('sockets of a service manager (LISTEN_FDS) need a sheep that stays: add -f')
    }
  } catch (error) {
    complain(SHEEP, error instanceof Error ? error.message : String(error))
    return 1
  }
  return daemonise(SHEEP)
}

process.exit(await main())
