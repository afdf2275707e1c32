/**
 * Making an object of pieces that come one after the other, so that nobody holds all of it in memory:
 *
 *   <name>.<number>.tmp -> space -> pieces -> fdatasync -> [lane] rename -> sync of the directory
 *
 * The lane is needed for the last step only: pieces come from other nodes, and nothing of this node waits for those.
 */
import { Code } from '../base/codes.js'
import type { StoredId } from '../model/oid.js'
import type { OpenFile } from '../world/world.js'
import { diskAt, isThere, judge, type StoreContext } from './context.js'
import {
  discard,
  missingIsFailure,
  openTemporary,
  putInPlace,
  reserve,
  roomyDisk,
  shut,
} from './create.js'
import type { Disk } from './disks.js'
import { syncFile, writeRuns } from './file-io.js'
import { assemblyFileName } from './names.js'
import type { Assembly } from './object-store.js'

export interface NewAssembly {
  readonly id: StoredId
  readonly bytes: number
  /** Different at each call: two of one object do not meet. */
  readonly serial: number
  /** Runs `act` when nothing else happens to the object. */
  readonly inTurn: (act: () => Promise<Code>) => Promise<Code>
}

export async function assemble(
  context: StoreContext,
  wanted: NewAssembly,
): Promise<Assembly | Code> {
  const { id, serial } = wanted
  const before = context.catalog.working.get(id)
  const disk = before === undefined ? roomyDisk(context, wanted) : diskAt(context, before)
  if (disk === undefined) return Code.NO_SPACE
  if (disk.gone) return Code.NETWORK_ERROR
  const path = `${disk.path}/${assemblyFileName(id, serial)}`
  let file: OpenFile | undefined
  try {
    file = await openTemporary(context, path)
    await reserve(file, wanted)
    return new FileAssembly(context, wanted, { disk, file, path })
  } catch (error) {
    if (file !== undefined) {
      shut(context, file, path)
      await discard(context, path)
    }
    return missingIsFailure(context, disk, judge(context, disk, 'store.create-failed', error))
  }
}

interface Place {
  readonly disk: Disk
  readonly file: OpenFile
  readonly path: string
}

class FileAssembly implements Assembly {
  readonly #context: StoreContext
  readonly #wanted: NewAssembly
  readonly #place: Place

  constructor(context: StoreContext, wanted: NewAssembly, place: Place) {
    this.#context = context
    this.#wanted = wanted
    this.#place = place
  }

  async write(offset: number, data: Uint8Array): Promise<Code> {
    if (this.#context.closed) return Code.SHUTDOWN
    if (offset < 0 || offset + data.length > this.#wanted.bytes) return Code.INVALID_PARMS
    try {
      await writeRuns(this.#place.file, data, offset)
      return Code.SUCCESS
    } catch (error) {
      return this.#failure(error)
    }
  }

  async finish(stillWanted: () => boolean): Promise<Code> {
    try {
      if (this.#context.durable) await syncFile(this.#place.file)
    } catch (error) {
      const code = this.#failure(error)
      await this.abandon()
      return code
    }
    let isPut = false
    const code = await this.#wanted.inTurn(async () => {
      if (!this.#mayBePut(stillWanted)) return Code.NETWORK_ERROR
      isPut = true
      const { disk, file, path: temporary } = this.#place
      return putInPlace(this.#context, { id: this.#wanted.id, disk, file, temporary })
    })
    if (!isPut) await this.abandon()
    return code
  }

  async abandon(): Promise<void> {
    shut(this.#context, this.#place.file, this.#place.path)
    await discard(this.#context, this.#place.path)
  }

  /** The name may have been taken on another disk, and the file may have gone with a format. */
  #mayBePut(stillWanted: () => boolean): boolean {
    const { catalog, files, closed } = this.#context
    const { disk, path } = this.#place
    const taken = catalog.working.get(this.#wanted.id)
    const isOther = taken !== undefined && taken !== disk.index
    return stillWanted() && !closed && !disk.gone && !isOther && isThere(files, path)
  }

  #failure(error: unknown): Code {
    const { disk } = this.#place
    const code = judge(this.#context, disk, 'store.create-failed', error)
    return missingIsFailure(this.#context, disk, code)
  }
}
