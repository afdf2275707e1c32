/** The kernel's NBD client: what of this machine it takes to turn connections into a block device. */
import type { Connection } from './world.js'

/** A device as sysfs shows it. */
export interface KernelDevice {
  /** N of /dev/nbdN. */
  readonly index: number
  /** 0 when nothing is attached. */
  readonly sizeBytes: number
  readonly readOnly: boolean
  /** Who attached it; undefined when nothing is attached. That process may be gone. */
  readonly pid: number | undefined
  /** Whether that process lives. */
  readonly pidLives: boolean
  /** What was said when it was attached; undefined by ioctl and with kernels before 5.14. */
  readonly backend: string | undefined
}

/** What NBD_DO_IT serves (linux/nbd.h). */
export interface IoctlSettings {
  readonly blockBytes: number
  readonly blocks: number
  /** Transmission flags of the server. */
  readonly flags: number
  /** 0: never. */
  readonly timeoutSeconds: number
}

export interface NbdKernel {
  /**
   * A generic netlink request (wire/netlink) and everything that came back. Rejects with an errno error, or one that names
   * the remedy when the binding is missing.
   */
  netlink(request: Uint8Array): Promise<Buffer>
  /** Messages of a multicast group, as long as the process lives; an empty one says that some were lost. */
  watch(group: number, listener: (messages: Buffer) => void): void
  /** Attaches by ioctl: the device works until the promise settles, and no longer than this process. */
  serve(index: number, how: IoctlSettings, descriptors: readonly number[]): Promise<void>
  /** Ends what was attached by ioctl. */
  hangUp(index: number): Promise<void>
  /**
   * Stops reading `connection` and returns its descriptor for the kernel to take; the caller destroys the connection
   * afterwards, which leaves the kernel's. TCP that hears nothing for `silenceMs` counts as dead; 0: as ever.
   */
  descriptor(connection: Connection, silenceMs: number): number
  /** From now on TCP that hears nothing for so long counts as dead. */
  noticeDeath(connection: Connection, milliseconds: number): void
  /** Two ends of a connection within this host; one of them for `descriptor`. */
  pair(): readonly [Connection, Connection]
  /** What there is, in order; empty without the module. */
  devices(): Promise<KernelDevice[]>
  /** Opens the device, which makes its partitions known, and reads its first block. Rejects with an errno error. */
  probe(index: number): Promise<void>
  /**
   * Makes what was written to the device durable, and makes sure that no file system, swap or other device uses it: EBUSY
   * then.
   */
  settle(index: number): Promise<void>
}
