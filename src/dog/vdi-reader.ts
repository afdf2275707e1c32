/** Reads a VDI or a snapshot, hypervolumes among them, without asking for what is not there. */
import { zeros } from '../base/bytes.js'
import { Code } from '../base/codes.js'
import type { DiskView } from '../inspect/disk.js'
import { dataOid } from '../model/oid.js'
import { inOrder } from './bounded.js'
import type { Context } from './command.js'
import { hasCode, type OpenedVdi, sayObjectFailure } from './image.js'
import { loadMap, type ObjectMap } from './object-map.js'
import { type Piece, piecesOf } from './pieces.js'

type Around = Pick<Context, 'sheep' | 'out'>

export class VdiReader implements DiskView {
  readonly #around: Around
  readonly #vdi: OpenedVdi
  readonly map: ObjectMap

  private constructor(around: Around, vdi: OpenedVdi, map: ObjectMap) {
    this.#around = around
    this.#vdi = vdi
    this.map = map
  }

  /** Rejects with the SheepError of reading the slots or the index. */
  static async open(around: Around, vdi: OpenedVdi): Promise<VdiReader> {
    return new VdiReader(around, vdi, await loadMap(around.sheep, vdi))
  }

  get sizeBytes(): number {
    return this.#vdi.header.sizeBytes
  }

  /** Bytes of the objects it has. */
  get allocatedBytes(): number {
    return this.map.count * 2 ** this.#vdi.header.blockSizeShift
  }

  /** The range lies inside the volume. Rejects with a SheepError, the object already named on stderr. */
  async read(offset: number, length: number): Promise<Buffer> {
    const pieces = piecesOf(offset, offset + length, this.#vdi.header.blockSizeShift)
    const parts: Buffer[] = []
    for await (const part of inOrder(pieces, (piece) => this.readPiece(piece))) parts.push(part)
    const [only] = parts
    return parts.length === 1 && only !== undefined ? only : Buffer.concat(parts)
  }

  /**
   * A running volume may replace an object while we read (copy on write, discard): then its slot
   * tells.
   */
  async readPiece({ index, offset, length }: Piece): Promise<Buffer> {
    for (;;) {
      const owner = this.map.vid(index)
      if (owner === 0) return zeros(length)
      const oid = dataOid(owner, index)
      try {
        return await this.#around.sheep.readObject(oid, offset, length)
      } catch (error) {
        const now = hasCode(error, Code.NO_OBJ) ? await this.map.renew(index) : owner
        if (now === owner) {
          sayObjectFailure(this.#around.out, 'read', oid, error)
          throw error
        }
      }
    }
  }
}
