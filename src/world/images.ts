/** Files and devices of this machine that hold a disk's content, and the programs that convert them. */

export interface ByteStretch {
  readonly start: number
  readonly end: number
}

/** Every error has the errno name in `code`. */
export interface ImageFile {
  readonly sizeBytes: number
  /** Exactly so many bytes; the range is inside the file. Rejects with EIO when it has become shorter. */
  read(offset: number, length: number): Promise<Buffer>
  /** The next stretch that may hold anything but zeros, from `from` on; undefined behind the last. */
  nextData(from: number): ByteStretch | undefined
  close(): Promise<void>
}

/** A file in the making: nobody sees it under its name until it is whole. A device is written in place. */
export interface NewImage {
  /** Where its bytes are for now. */
  readonly path: string
  /** It is all zeros where nothing was written. */
  readonly isFresh: boolean
  write(offset: number, data: Uint8Array): Promise<void>
  /** Everything on stable storage, its name too. `sizeBytes`: its length; as it is when not given. */
  commit(sizeBytes?: number): Promise<void>
  /** As if it had never been begun; what was written to a device stays. */
  discard(): Promise<void>
}

export interface ProgramEnd {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

export interface Images {
  open(path: string): Promise<ImageFile>
  /** Rejects with EEXIST when there is something under that name already, unless it is to be replaced. */
  create(path: string, how: { readonly replace: boolean }): Promise<NewImage>
  /** A directory nobody else can look into; `remove` takes it away with its content. */
  scratch(): Promise<{ readonly path: string; remove(): Promise<void> }>
  /** Runs a program to its end; `stop` ends it early. Rejects with ENOENT where it is not installed. */
  run(words: readonly string[], stop: AbortSignal): Promise<ProgramEnd>
}
