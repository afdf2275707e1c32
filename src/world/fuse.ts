/** A mounted FUSE file system from below: requests of the kernel come out, replies go in. */

export interface FuseEvents {
  /**
   * A request as the kernel wrote it. `bytes` stay as they are until `release` is called, which must happen once; the kernel keeps its
   * requests while too many are out.
   */
  request(bytes: Buffer, release: () => void): void
  /** All requests of this turn of the event loop have been told. */
  turn(): void
  /** It is unmounted, or the connection to the kernel broke. Called once. */
  closed(reason: string | undefined): void
}

export interface FuseDevice {
  /** Bytes the largest write may have. */
  readonly writeBytesMax: number
  start(events: FuseEvents): void
  /** Sends a reply. False: the kernel does not wait for it (any more). */
  reply(head: Uint8Array, body?: Uint8Array): boolean
  /** Takes the mount away, open files or not, and ends. */
  unmount(): void
}
