/**
 * A client that writes and flushes over and over until its server is gone, and the model of what must be
 * there afterwards: each slot holds what its last flush covered, or something asked for after that.
 */
import { start } from './run.js'

export interface Slot {
  /** The fill byte the last flush covered; 0 before any. */
  flushed: number
  /** Fill bytes asked for since; each sector may hold any of them. */
  readonly later: number[]
}

export interface FlushingWriter {
  /** Flushes known to have succeeded. */
  flushes(): number
  /** Ends with the first command that fails, which is the end of its server. */
  readonly done: Promise<void>
}

interface Plan {
  readonly uri: string
  readonly slots: readonly Slot[]
  readonly slotBytes: number
  /** Numbers in [0, limit), reproducible. */
  readonly below: (limit: number) => number
}

/**
 * One qemu-io a batch: some writes and a flush. Its exit code is the only word on the flush that can be
 * trusted; at its prompt qemu-io says nothing when a flush fails.
 */
export function startFlushingWriter(plan: Plan): FlushingWriter {
  let flushes = 0
  const work = async () => {
    for (;;) {
      const { commands, touched } = batch(plan)
      const words = [...commands, 'flush'].flatMap((command) => ['-c', command])
      const client = start(['qemu-io', '-f', 'raw', '-t', 'writeback', ...words, plan.uri])
      if ((await client.done).code !== 0) return
      flushes++
      for (const slot of touched) {
        slot.flushed = slot.later.at(-1) ?? slot.flushed
        slot.later.length = 0
      }
    }
  }
  return { flushes: () => flushes, done: work() }
}

function batch({ slots, slotBytes, below }: Plan): { commands: string[]; touched: Set<Slot> } {
  const touched = new Set<Slot>()
  const commands = Array.from({ length: 1 + below(24) }, () => {
    const index = below(slots.length)
    const fill = 1 + below(255)
    slots[index]!.later.push(fill)
    touched.add(slots[index]!)
    return `write -P ${fill} ${index * slotBytes} ${slotBytes}`
  })
  return { commands, touched }
}

/** Slots whose sectors hold something they must not hold, in words. */
export function wrongSlots(image: Buffer, slots: readonly Slot[], slotBytes: number): string[] {
  const wrong: string[] = []
  slots.forEach(({ flushed, later }, index) => {
    const allowed = new Set([flushed, ...later])
    for (let at = index * slotBytes; at < (index + 1) * slotBytes; at += 512) {
      const sector = image.subarray(at, at + 512)
      const fill = sector[0] ?? -1
      if (allowed.has(fill) && sector.every((byte) => byte === fill)) continue
      wrong.push(`slot ${index} at ${at}: holds ${fill}, allowed ${[...allowed].join(' ')}`)
      break
    }
  })
  return wrong
}
