/**
 * A stand-alone NBD front: serves the disks of a cluster it is no member of, through whichever of its sheep answers. Locks,
 * flushes and what is sent again after a sheep died are the business of src/remote.
 */
import { NbdHall } from '../doors/nbd/hall.js'
import { startFiguresDoor } from '../doors/sheepdog/figures-door.js'
import { type RemoteVolumes, remoteVolumes } from '../remote/remote-volumes.js'
import { Op } from '../wire/sheepdog/opcodes.js'
import { plainRequest } from '../wire/sheepdog/requests.js'
import { nodeWorld } from '../world/node/world.js'
import type { World } from '../world/world.js'
import { exportBook } from './export-book.js'
import type { HostAndPort } from './front-option.js'
import { named } from './listening.js'
import { openNbdDoors } from './nbd-doors.js'
import { type Answers, watchAnswers } from './service/answers.js'
import type { SheepStatus } from './service/status-line.js'
import type { RunningSheep } from './sheep-daemon.js'
import type { SheepOptions } from './sheep-options.js'
import { makeStoreDirectory, openSheepLog } from './store-directory.js'

/** A cluster nobody answers for is told to who starts the front; later on its clients wait as long as it takes. */
const FIRST_ANSWER_MS = 30_000
/** After its clients have gone the front has this long to flush and hand back what they used. */
const FLUSH_MS = 10_000

/** Rejects with an Error for people. */
export async function runFront(
  options: SheepOptions & { readonly front: readonly HostAndPort[] },
  status: SheepStatus,
): Promise<RunningSheep> {
  const { front, nbd, sockets, nbdLimits, nbdRules, config } = options
  if (nbd.length + sockets.nbd.length === 0) {
    throw new Error('--front serves nothing without --nbd: say where its clients find it')
  }
  if (sockets.sheepdog.length + sockets.iscsi.length > 0) {
    throw new Error('--front speaks NBD only: pass in no sockets for sheepdog and iscsi')
  }
  const directory = makeStoreDirectory(options.metaDirectory)
  const log = openSheepLog(options, directory)
  const world = nodeWorld(log)
  const names = front.map(({ host, port }) => `${host}:${port}`).join(', ')
  status.doing(`Looking for a sheep at ${names}`)
  const volumes = remoteVolumes({ world, log, addresses: front })
  const doors: { close(): Promise<void> }[] = []
  const book = exportBook(nbdRules, config, log)
  let answers: Answers | undefined
  const stop = async (): Promise<void> => {
    answers?.stop()
    // Its clients' volumes are flushed and handed back; what no sheep answers is given up in the end.
    const cancel = world.clock.after(nbdLimits.drainMs + FLUSH_MS, () => volumes.end())
    for (const result of await Promise.allSettled(doors.map((door) => door.close()))) {
      if (result.status === 'fulfilled') continue
      log.warn('door.close.failed', { reason: String(result.reason) })
    }
    cancel()
    volumes.end()
  }
  try {
    const hall = new NbdHall(world.clock, nbdLimits)
    const address = { path: `${directory}/sock` }
    const figures = startFiguresDoor({ world, log, figures: hall, address })
    doors.push(await named(`socket ${address.path}`, figures))
    await firstAnswer(volumes, world, names)
    await openNbdDoors({ world, log, source: volumes, rules: book, hall, options, doors })
  } catch (error) {
    await stop()
    log.error('start.failed', { reason: error instanceof Error ? error.message : String(error) })
    throw error
  }
  log.info('front.up', { sheep: names })
  answers = watchAnswers(volumes.access, world.clock)
  status.says(() =>
    answers?.come === true ? `Serving the disks of ${names}` : `No sheep answers at ${names}`,
  )
  return { log, over: new Promise(() => undefined), reload: () => book.reload(), stop }
}

async function firstAnswer(
  { access }: RemoteVolumes,
  { clock }: Pick<World, 'clock'>,
  names: string,
): Promise<void> {
  let cancel: () => void = () => undefined
  const late = new Promise<never>((_, reject) => {
    cancel = clock.after(FIRST_ANSWER_MS, () => {
      const remedy = 'start one, or give --front another address'
      reject(
        new Error(`no sheep answers at ${names} within ${FIRST_ANSWER_MS / 1000} s: ${remedy}`),
      )
    })
  })
  const answer = access.call(plainRequest({ opcode: Op.STAT_SHEEP }))
  answer.catch(() => undefined)
  await Promise.race([answer, late]).finally(cancel)
}
