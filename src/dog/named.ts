/** Volumes by the name doors export them under: `Alice`, `Alice@tag`, `Alice@1` (volume/export-name.ts). */
import { Code } from '../base/codes.js'
import type { Context } from './command.js'
import { misused } from './failure.js'
import { hasCode, type OpenedVdi, openFailure, openVdi } from './image.js'
import { parseSnapshot, type SnapshotSelector, WORKING } from './options.js'

/**
 * `-s` and what stands behind an '@' select alike. A working VDI whose own name has an '@' comes first. Throws the open
 * failure.
 */
export async function openNamed(
  { sheep, options }: Pick<Context, 'sheep' | 'options'>,
  operand: string,
): Promise<OpenedVdi> {
  if (options.snapshot !== undefined) return await openVdi(sheep, operand, options.snapshot)
  const at = operand.lastIndexOf('@')
  if (at < 0) return await openVdi(sheep, operand, WORKING)
  if (await isWorkingName(sheep, operand)) return await openVdi(sheep, operand, WORKING)
  return await openVdi(sheep, operand.slice(0, at), selectorOf(operand.slice(at + 1)))
}

function selectorOf(text: string): SnapshotSelector {
  if (text === '')
    throw misused("There is nothing behind the '@': say a tag or an id of a snapshot")
  return parseSnapshot(text)
}

async function isWorkingName(sheep: Context['sheep'], name: string): Promise<boolean> {
  try {
    await sheep.lookup(name, WORKING)
    return true
  } catch (error) {
    if (hasCode(error, Code.NO_VDI, Code.NO_TAG)) return false
    throw openFailure(name, WORKING, error)
  }
}
