/** The reference ledger of a shared object, on this node (objects spec, section 6). */
import { Code, type Done } from '../base/codes.js'
import { LEDGER_BYTES, type Oid } from '../model/oid.js'
import type { LocalObjects } from './local-objects.js'

const ENTRIES = LEDGER_BYTES / 4

export interface LedgerChange {
  readonly ledger: Oid
  readonly generation: number
  readonly count: number
}

/**
 * Applies one drop: ledger[g] -= 1, ledger[g + 1] += c; an absent ledger counts one reference of
 * generation 0; one that is all zero afterwards is removed. Changes of one ledger must not overlap; the
 * caller runs them one after the other. INVALID_PARMS for a generation outside the ledger (defect O4).
 */
export function applyDrop(
  local: LocalObjects,
  epoch: number,
  change: LedgerChange,
  done: Done,
): void {
  const { ledger, generation, count } = change
  if (generation + 1 >= ENTRIES) {
    done(Code.INVALID_PARMS)
    return
  }
  const bytes = Buffer.alloc(LEDGER_BYTES)
  local.read(epoch, ledger, 0, bytes, (readCode) => {
    if (readCode !== Code.SUCCESS && readCode !== Code.NO_OBJ) {
      done(readCode)
      return
    }
    if (readCode === Code.NO_OBJ) bytes.fill(0).writeInt32LE(1, 0)
    add(bytes, generation, -1)
    add(bytes, generation + 1, count | 0)
    if (!bytes.every((byte) => byte === 0)) local.create(epoch, ledger, 0, bytes, done)
    else if (readCode === Code.NO_OBJ) done(Code.SUCCESS)
    else local.remove(epoch, ledger, done)
  })
}

function add(bytes: Buffer, entry: number, amount: number): void {
  bytes.writeInt32LE((bytes.readInt32LE(4 * entry) + amount) | 0, 4 * entry)
}
