/** What the handshake asks of exports and their meta contexts, looked up among the volumes. */
import { Code } from '../../base/codes.js'
import type { Volume, VolumeContext, VolumeSource } from '../../volume/volume.js'
import { AllocationState, BASE_ALLOCATION } from '../../wire/nbd/constants.js'

/** A meta context of an open export, under the number its client knows it by. */
export interface ChosenContext {
  readonly id: number
  readonly context: VolumeContext
}

export interface OpenedExport {
  readonly volume: Volume
  readonly description: string
  readonly contexts: readonly ChosenContext[]
}

export interface OpenWish {
  readonly name: string
  /** The description is wanted too. */
  readonly describe: boolean
  /** Names of `offeredContexts`; their numbers are their places, from 1. */
  readonly contexts: readonly string[]
}

/** Opens; a context that is gone meanwhile fails it. */
export async function openExport(source: VolumeSource, wish: OpenWish): Promise<OpenedExport> {
  const description = wish.describe ? (await source.stat(wish.name)).description : ''
  const volume = await source.open(wish.name)
  try {
    const contexts: ChosenContext[] = []
    for (const [i, name] of wish.contexts.entries()) {
      contexts.push({ id: i + 1, context: await contextOf(source, volume, name) })
    }
    return { volume, description, contexts }
  } catch (error) {
    await volume.close()
    throw error
  }
}

/** Names of all contexts of an export; rejects with a SheepError. */
export async function offeredContexts(source: VolumeSource, name: string): Promise<string[]> {
  return [BASE_ALLOCATION, ...(await source.contexts(name))]
}

async function contextOf(
  source: VolumeSource,
  volume: Volume,
  name: string,
): Promise<VolumeContext> {
  return name === BASE_ALLOCATION ? allocation(volume) : source.context(volume, name)
}

function allocation(volume: Volume): VolumeContext {
  const { DATA, HOLE_AND_ZERO } = AllocationState
  return {
    states: (range, most, done) => {
      const extents = volume.extents(range).slice(0, most)
      const stretches = extents.map(({ length, hole }) => {
        return { length, state: hole ? HOLE_AND_ZERO : DATA }
      })
      done(Code.SUCCESS, stretches)
    },
  }
}
