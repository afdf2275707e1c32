/** The kernel's NBD devices: the messages of wire/netlink, sent, with their refusals as sentences. */
import { getSystemErrorName } from 'node:util'
import {
  decodeFamily,
  decodeReply,
  encodeFamilyQuestion,
  type Message,
} from '../wire/netlink/messages.js'
import * as nbd from '../wire/netlink/nbd.js'
import type { NbdKernel } from '../world/nbd-kernel.js'
import { errnoName, errnoText } from './errno.js'
import { Exit, Failure } from './failure.js'

const EPERM = 1
const ENOENT = 2
export const EBUSY = 16
const ENOSPC = 28

const NOT_ROOT = "only root (CAP_SYS_ADMIN) may tell the kernel's NBD client what to do"

/** What these mean here. */
const SENTENCES: Readonly<Record<string, string>> = {
  EBUSY: 'the device is in use',
  EINVAL: 'Invalid argument (nothing is attached, or something else)',
  ENODEV: 'there is no such device',
}

/** The kernel's refusal, by its error number. */
export class KernelRefused extends Error {
  readonly errno: number

  constructor(what: string, errno: number) {
    const code = getSystemErrorName(-errno)
    const why = SENTENCES[code] ?? errnoText(Object.assign(new Error(code), { code }))
    super(`the kernel refuses to ${what}: ${why}`)
    this.errno = errno
  }
}

/** The client as generic netlink reaches it. */
export class NbdFamily {
  readonly #kernel: NbdKernel
  readonly #id: number
  readonly #events: number | undefined

  private constructor(kernel: NbdKernel, id: number, events: number | undefined) {
    this.#kernel = kernel
    this.#id = id
    this.#events = events
  }

  /** Undefined when the module is not loaded, or not to be seen from here. Throws a Failure. */
  static async find(kernel: NbdKernel): Promise<NbdFamily | undefined> {
    const bytes = await kernel.netlink(encodeFamilyQuestion(nbd.NBD_FAMILY)).catch(noNetlink)
    const { errno, messages } = decodeReply(bytes)
    const family = decodeFamily(messages)
    if (errno === ENOENT) return undefined
    if (family === undefined) {
      throw new Failure(Exit.system, ['The kernel gave no answer about its NBD client'])
    }
    return new NbdFamily(kernel, family.id, family.groups.get(nbd.NBD_EVENTS))
  }

  /** Returns the number of the device. */
  async connect(wanted: nbd.ConnectRequest): Promise<number> {
    const messages = await this.#ask('attach', nbd.encodeConnect(this.#id, wanted))
    const index = wanted.index ?? nbd.decodeConnected(messages)
    if (index === undefined) throw new Failure(Exit.system, ['The kernel told no device number'])
    return index
  }

  /** False: no connection of the device is dead. */
  async replaceDead(wanted: nbd.ReconfigureRequest): Promise<boolean> {
    try {
      await this.#ask('take a new connection', nbd.encodeReconfigure(this.#id, wanted))
      return true
    } catch (error) {
      if (error instanceof KernelRefused && error.errno === ENOSPC) return false
      throw error
    }
  }

  async disconnect(index: number): Promise<void> {
    await this.#ask('detach', nbd.encodeDisconnect(this.#id, index))
  }

  /** Tells of connections that died; of `undefined` when some of what happened was lost. */
  watch(listener: (index: number | undefined) => void): void {
    if (this.#events === undefined) {
      throw new Failure(Exit.system, ["This kernel's NBD client tells nothing of dead connections"])
    }
    this.#kernel.watch(this.#events, (bytes) => {
      if (bytes.length === 0) listener(undefined)
      for (const index of nbd.decodeDeadLinks(decodeReply(bytes).messages, this.#id)) {
        listener(index)
      }
    })
  }

  async #ask(what: string, request: Buffer): Promise<readonly Message[]> {
    const { errno, messages } = decodeReply(await this.#kernel.netlink(request).catch(noNetlink))
    if (errno === 0) return messages
    if (errno === EPERM) throw new Failure(Exit.system, [`Failed to ${what}: ${NOT_ROOT}`])
    throw new KernelRefused(what, errno ?? EBUSY)
  }
}

export function withoutModule(): Failure {
  return new Failure(Exit.system, [
    "The kernel's NBD client is not there: run `modprobe nbd`",
    'In a container the module may be loaded and out of sight: try --ioctl with a /dev/nbdN there',
  ])
}

/** What the binding says when it is missing is a sentence for the user already. */
function noNetlink(error: unknown): never {
  const why = errnoName(error) === undefined ? String((error as Error).message) : errnoText(error)
  throw new Failure(Exit.system, [`The kernel's NBD client cannot be asked: ${why}`])
}
