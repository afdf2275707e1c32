/** Export names as clients write them, looked up among the volumes. */
import { Code, SheepError } from '../../base/codes.js'
import type { ExportInfo, Volume, VolumeSource } from '../../volume/volume.js'

/** Looks without opening; rejects with a SheepError. */
export async function findExport(source: VolumeSource, name: string): Promise<ExportInfo> {
  return source.stat(await resolve(source, name))
}

export interface OpenedExport {
  readonly volume: Volume
  readonly description: string
}

/** Opens; the description is looked up only when `describe` asks for it. */
export async function openExport(
  source: VolumeSource,
  { name, describe }: { readonly name: string; readonly describe: boolean },
): Promise<OpenedExport> {
  const full = await resolve(source, name)
  const description = describe ? (await source.stat(full)).description : ''
  return { volume: await source.open(full), description }
}

/** The empty name means the only VDI there is; where there are several, nobody guesses. */
async function resolve(source: VolumeSource, name: string): Promise<string> {
  if (name !== '') return name
  const disks = (await source.list()).filter((info) => !info.readOnly)
  const [only] = disks
  if (only === undefined || disks.length > 1) {
    throw new SheepError(Code.NO_VDI, 'no default export: name one')
  }
  return only.name
}
