/** The notifier of this process, as its environment asks for it (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID). */
import { type Log, silentLog } from '../../base/log.js'
import { NodeClock } from '../../world/node/clock.js'
import {
  hasServiceBinding,
  monotonicUsec,
  notifyWay,
  throughThePool,
} from '../../world/node/service.js'
import { NO_NOTIFIER, type ServiceNotifier, startNotifier } from './notifier.js'

/** There is a log only once the process has started. */
export interface EarlyNotifier extends Omit<ServiceNotifier, 'ready'> {
  ready(log: Log): void
}

/** Takes the variables away, so that no child speaks in our name. `status`: one line for people. */
export function serviceNotifier(
  env: Record<string, string | undefined>,
  status: () => string,
): EarlyNotifier {
  const { NOTIFY_SOCKET } = env
  const watchdogMs = watchdogOf(env, process.pid)
  for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete env[name]
  if (NOTIFY_SOCKET === undefined || NOTIFY_SOCKET === '') return NO_NOTIFIER
  let log: Log = silentLog
  const failed = (reason: string): void => log.warn('service.notify.failed', { reason })
  const notifier = startNotifier({
    send: notifyWay(NOTIFY_SOCKET, failed),
    clock: new NodeClock(),
    log: {
      error: (event, fields) => log.error(event, fields),
      warn: (event, fields) => log.warn(event, fields),
      info: (event, fields) => log.info(event, fields),
      debug: (event, fields) => log.debug(event, fields),
    },
    status,
    monotonicUsec,
    watchdogMs,
    probe: () => throughThePool(process.execPath),
  })
  return {
    ready: (opened) => {
      log = opened
      const way = hasServiceBinding() ? 'binding' : 'systemd-notify'
      log.info('service.notifies', { way, watchdogMs })
      notifier.ready()
    },
    reload: (work) => notifier.reload(work),
    stopping: () => notifier.stopping(),
    end: (line) => notifier.end(line),
  }
}

/** Time between two beats at most; undefined when nobody listens for this process (sd_watchdog_enabled(3)). */
export function watchdogOf(
  env: Readonly<Record<string, string | undefined>>,
  pid: number,
): number | undefined {
  const { WATCHDOG_USEC, WATCHDOG_PID } = env
  if (WATCHDOG_PID !== undefined && WATCHDOG_PID !== `${pid}`) return undefined
  const usec = Number(WATCHDOG_USEC)
  return WATCHDOG_USEC !== undefined && usec > 0 && Number.isSafeInteger(usec)
    ? usec / 1000
    : undefined
}
