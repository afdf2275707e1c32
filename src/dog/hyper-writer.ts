/** `dog vdi write` of a hypervolume: locked and written as a block door does it, because its index is one node's at a time. */
import { SheepError } from '../base/codes.js'
import type { Context } from './command.js'
import { failed } from './failure.js'
import { openLocked, operate, volumesOf } from './transfer/volumes.js'

export interface HyperWriter {
  /** `data` must not change until it is done. Rejects with a Failure. */
  write(offset: number, data: Uint8Array): Promise<void>
  /** Everything written is durable. */
  flush(): Promise<void>
  close(): Promise<void>
}

/** `fua`: durable before each write is done. Throws a Failure when somebody else has the volume. */
export async function openHyper(
  context: Context,
  name: string,
  fua: boolean,
): Promise<HyperWriter> {
  const volumes = await volumesOf(context)
  try {
    const volume = await openLocked(volumes, name)
    return {
      write: (offset, data) => told(operate((done) => volume.write(offset, data, fua, done))),
      flush: () => told(operate((done) => volume.flush(done))),
      close: async () => {
        await told(volume.close()).finally(() => volumes.end())
      },
    }
  } catch (error) {
    volumes.end()
    throw error
  }
}

async function told(done: Promise<void>): Promise<void> {
  try {
    await done
  } catch (error) {
    if (error instanceof SheepError) throw failed(error.message)
    throw error
  }
}
