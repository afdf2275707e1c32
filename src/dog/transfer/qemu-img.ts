/**
 * Formats beside raw are qemu-img's business, where it is installed. It gets the volume from this very process, over NBD on a
 * socket nobody else can reach, so that it does not matter which doors the sheep has open.
 */
import { silentLog } from '../../base/log.js'
import { startNbdServer } from '../../doors/nbd/server.js'
import { SharedVolume } from '../../volume/shared-volume.js'
import type { Volume, VolumeSource } from '../../volume/volume.js'
import type { ProgramEnd } from '../../world/images.js'
import type { Context } from '../command.js'
import { errnoName } from '../errno.js'
import { failed } from '../failure.js'
import { checkStop } from './copy.js'

const EXPORT_NAME = 'disk'

/** What `qemu-img info` says of an image. */
export interface ImageInfo {
  readonly sizeBytes: number
  /** Another file some of its content is in; undefined for an image that stands by itself. */
  readonly needs: string | undefined
}

type Around = Pick<Context, 'io' | 'world'>

/** `use` gets the address qemu-img knows the volume by; the volume stays open. */
export async function overNbd<Result>(
  { io, world }: Around,
  volume: Volume,
  use: (uri: string) => Promise<Result>,
): Promise<Result> {
  const scratch = await io.images.scratch()
  try {
    const path = `${scratch.path}/nbd`
    const server = await startNbdServer({
      ...{ world, log: silentLog, address: { path } },
      source: only(volume),
    })
    try {
      return await use(`nbd+unix:///${EXPORT_NAME}?socket=${encodeURIComponent(path)}`)
    } finally {
      await server.close()
    }
  } finally {
    await scratch.remove()
  }
}

/** Throws a Failure with qemu-img's words, or that it is not there. */
export async function runQemuImg(
  { io }: Around,
  words: readonly string[],
  stop: AbortSignal,
): Promise<string> {
  const { status, stdout, stderr } = await endOf(io, words, stop)
  checkStop(stop)
  if (status !== 0) throw failed(stderr.trim(), `qemu-img ${words[0]} failed (${status})`)
  return stdout
}

/** True when it says that both are the same. */
export async function qemuImgFindsSame(
  { io }: Around,
  words: readonly string[],
  stop: AbortSignal,
): Promise<boolean> {
  const { status, stderr } = await endOf(io, ['compare', ...words], stop)
  checkStop(stop)
  if (status > 1 || status < 0) throw failed(stderr.trim(), `qemu-img compare failed (${status})`)
  return status === 0
}

async function endOf(
  io: Context['io'],
  words: readonly string[],
  stop: AbortSignal,
): Promise<ProgramEnd> {
  try {
    return await io.images.run(['qemu-img', ...words], stop)
  } catch (error) {
    if (errnoName(error) !== 'ENOENT') throw error
    throw failed(
      'qemu-img is not installed, and only it knows formats other than raw',
      'On Debian it is in the package qemu-utils',
    )
  }
}

/** Throws a Failure for what is no image of the format. */
export async function imageInfo(
  around: Around,
  path: string,
  stop: AbortSignal,
): Promise<ImageInfo> {
  const words = ['info', '--output=json', '-f', 'qcow2', fileName(path)]
  const info = JSON.parse(await runQemuImg(around, words, stop)) as Readonly<
    Record<string, unknown>
  >
  const size = info['virtual-size']
  if (typeof size !== 'number') throw failed(`qemu-img does not tell the size of ${path}`)
  const specific = info['format-specific'] as { data?: Record<string, unknown> } | undefined
  const others = [info['backing-filename'], specific?.data?.['data-file']]
  const needs = others.find((name): name is string => typeof name === 'string')
  return { sizeBytes: size, needs }
}

/** So that no part of a path is taken for a protocol (`nbd:...`) or an option. */
export function fileName(path: string): string {
  return path.startsWith('/') ? path : `./${path}`
}

/** One volume under one name; its owner closes it. */
function only(volume: Volume): VolumeSource {
  const info = {
    ...{ name: EXPORT_NAME, sizeBytes: volume.sizeBytes, readOnly: volume.readOnly },
    ...{ description: volume.name, objectBytes: volume.objectBytes },
  }
  return {
    list: () => Promise.resolve([info]),
    stat: () => Promise.resolve(info),
    open: () => Promise.resolve(new SharedVolume(volume, () => Promise.resolve())),
    contexts: () => Promise.resolve([]),
    context: () => Promise.reject(new Error('it has no contexts')),
  }
}
