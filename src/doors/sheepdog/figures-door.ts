/**
 * The figures of an NBD door for `dog nbd list`, where there is no sheep around it: the one request of the sheepdog protocol
 * that a front answers, at a socket in its own directory. Whoever may connect there could read its log as well.
 */
import { Code } from '../../base/codes.js'
import type { Log } from '../../base/log.js'
import { type Answer, failed } from '../../sheep/answer.js'
import {
  type Frame,
  FrameReader,
  MalformedFrame,
  requestBodyLength,
  versionAccepted,
} from '../../wire/sheepdog/frame.js'
import { Op } from '../../wire/sheepdog/opcodes.js'
import { replyHead } from '../../wire/sheepdog/replies.js'
import type { Address, Clock, Connection, World } from '../../world/world.js'
import type { NbdFigures } from './context.js'
import { pageOf } from './nbd-ops.js'

/** Programs that ask at once. */
const CONNECTIONS_MAX = 64

export interface FiguresDoorOptions {
  readonly world: Pick<World, 'clock' | 'network'>
  readonly log: Log
  readonly figures: NbdFigures
  readonly address: Address
}

/** Rejects when the address cannot be listened at. */
export async function startFiguresDoor({
  world: { clock, network },
  log,
  figures,
  address,
}: FiguresDoorOptions): Promise<{ close(): Promise<void> }> {
  const open = new Set<Connection>()
  const listener = await network.listen(address, (connection) => {
    if (open.size >= CONNECTIONS_MAX) {
      log.warn('figures.full', { connections: open.size })
      connection.destroy()
      return
    }
    open.add(connection)
    serve(connection, figures, {
      clock,
      malformed: (reason) => log.warn('figures.malformed', { reason }),
      gone: () => open.delete(connection),
    })
  })
  return {
    close: async () => {
      await listener.close()
      for (const connection of open) connection.destroy()
    },
  }
}

interface Surroundings {
  readonly clock: Pick<Clock, 'soon'>
  readonly malformed: (reason: string) => void
  readonly gone: () => void
}

/** One request a turn of the loop, and none while the client is slow to take the answers. */
function serve(
  connection: Connection,
  figures: NbdFigures,
  { clock, malformed, gone }: Surroundings,
): void {
  const reader = new FrameReader(withoutBody)
  let [isOver, isSlow, isWorking] = [false, false, false]
  const work = (): void => {
    isWorking = false
    if (isOver || isSlow) return
    const request = nextFrame()
    if (request === undefined) {
      connection.resume()
      return
    }
    const { result, body = Buffer.alloc(0), fill } = answerTo(figures, request)
    const { opcode, id } = request
    const head = replyHead({ opcode, id, epoch: 0, result, dataLength: body.length })
    fill?.(head)
    isSlow = !connection.writeAll([head, body])
    again()
  }
  const again = (): void => {
    if (isWorking) return
    isWorking = true
    clock.soon(work)
  }
  const nextFrame = (): Frame | undefined => {
    try {
      return reader.next()
    } catch (error) {
      if (!(error instanceof MalformedFrame)) throw error
      malformed(error.message)
      connection.destroy()
      return undefined
    }
  }
  connection.on({
    data: (chunk) => {
      reader.give(chunk)
      // What there is already comes first.
      connection.pause()
      again()
    },
    drain: () => {
      isSlow = false
      again()
    },
    close: () => {
      isOver = true
      gone()
    },
  })
}

function withoutBody(head: Buffer): number {
  const bytes = requestBodyLength(head)
  if (bytes > 0) throw new MalformedFrame(`request with ${bytes} bytes, where none brings any`)
  return 0
}

function answerTo(figures: NbdFigures, request: Frame): Answer {
  if (!versionAccepted(request.version, request.opcode)) return failed(Code.VER_MISMATCH)
  return request.opcode === Op.NBD_STATISTICS && !request.isOversized
    ? pageOf(figures, request)
    : failed(Code.INVALID_PARMS)
}
