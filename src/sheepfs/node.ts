/**
 * The tree as the session knows it. Nodes are made anew at each look-up and hold no state of their own; what is open has its state
 * elsewhere (disks.ts). Failures are FsErrors or SheepErrors.
 */

export interface Facts {
  readonly sizeBytes: number
  readonly allocatedBytes: number
  /** Milliseconds since 1970. */
  readonly modifiedMs: number
  /** Permissions alone. */
  readonly mode: number
}

/** Extended attributes of a node. */
export interface Xattrs {
  list(): Promise<string[]>
  /** Undefined: there is none of this name. */
  get(name: string): Promise<Buffer | undefined>
  set(name: string, value: Buffer, how: 'any' | 'create' | 'replace'): Promise<void>
  remove(name: string): Promise<void>
}

export interface Directory {
  readonly kind: 'directory'
  readonly xattrs?: Xattrs
  facts(): Promise<Facts>
  child(name: string): Promise<TreeNode | undefined>
  list(): Promise<readonly Listed[]>
  makeDirectory?(name: string): Promise<void>
  removeDirectory?(name: string): Promise<void>
  makeFile?(name: string): Promise<void>
  removeFile?(name: string): Promise<void>
  /** Within this directory. `mayReplace` false: EEXIST when there is one of the new name. */
  rename?(name: string, newName: string, mayReplace: boolean): Promise<void>
}

export interface Listed {
  readonly name: string
  readonly isDirectory: boolean
  /** Where its facts are known without asking anybody. Undefined: it is gone. */
  readonly node?: () => TreeNode | undefined
}

export interface FileNode {
  readonly kind: 'file'
  /** Files of one path but of different identities are different files: they share no pages and no inode number. */
  readonly identity?: number
  readonly xattrs?: Xattrs
  facts(): Promise<Facts>
  open(how: OpenHow): Promise<OpenFile>
  /** Without an open file. */
  truncate?(sizeBytes: number): Promise<void>
}

export type TreeNode = Directory | FileNode

export interface OpenHow {
  readonly writes: boolean
}

/** 0, or the errno. */
export type IoDone = (errno: number) => void

/** An open file. Operations end exactly once; buffers are borrowed until then. */
export interface OpenFile {
  /** Read and written past the page cache. */
  readonly isDirect: boolean
  /** Bytes there are from `offset` on, at most `size`; borrowed until `done` returns. */
  read(offset: number, size: number, done: (errno: number, data: Uint8Array) => void): void
  write?(offset: number, data: Uint8Array, done: (errno: number, written: number) => void): void
  sync?(done: IoDone): void
  truncate?(sizeBytes: number): Promise<void>
  /** Makes the range zeros; `holes`: gives its space back. Otherwise it is filled with space. */
  allocate?(range: FileRange, how: Allocation): Promise<void>
  /** Where the next data or hole is; undefined behind the last data. */
  seek?(offset: number, what: 'data' | 'hole'): Promise<number | undefined>
  /** A descriptor is closed: what must be seen by others afterwards is seen. */
  settle?(): Promise<void>
  close(): Promise<void>
}

export interface FileRange {
  readonly offset: number
  readonly length: number
}

export interface Allocation {
  readonly kind: 'reserve' | 'punch' | 'zero'
  readonly keepSize: boolean
}
