/**
 * One mount: requests of the kernel in, replies out, and nothing else. Every request that wants a reply gets exactly one, also
 * when a node of the tree throws; what is answered late holds up nobody else.
 *
 *   new --INIT--> serving --DESTROY or the device's end--> over
 */
import { describe, type Log } from '../base/log.js'
import {
  Errno,
  FUSE_MAJOR,
  FUSE_MINOR_MIN,
  FuseOp,
  InitFlag,
  O_ACCMODE,
  OpenFlag,
  S_IFDIR,
  S_IFREG,
  SEEK_DATA,
  SEEK_HOLE,
  SetAttr,
} from '../wire/fuse/constants.js'
import {
  type Attr,
  encodeAttr,
  encodeEntry,
  encodeInit,
  encodeInitVersion,
  encodeOffset,
  encodeOpen,
  encodeStatFs,
  encodeWritten,
  replyHead,
  type StatFs,
} from '../wire/fuse/replies.js'
import {
  decodeBatchForget,
  decodeCreate,
  decodeFallocate,
  decodeForget,
  decodeHandle,
  decodeHead,
  decodeInit,
  decodeMkdir,
  decodeMknod,
  decodeName,
  decodeOpenFlags,
  decodeRead,
  decodeRename,
  decodeSeek,
  decodeSetAttr,
  decodeWrite,
  MALFORMED_ERRNO,
  MalformedRequest,
  type RequestHead,
} from '../wire/fuse/requests.js'
import { allocationOf } from './allocation.js'
import { errnoOfError, FsError } from './errors.js'
import { Handles, listingPage } from './handles.js'
import type { Directory, FileNode, OpenFile, TreeNode } from './node.js'
import { NodeTable } from './node-table.js'
import { getXattr, listXattr, removeXattr, setXattr } from './xattr-requests.js'

const NAME_BYTES_MAX = 255
const MAX_BACKGROUND = 64
/** The kernel's largest; less when it says so. */
const PAGE_BYTES = 4096

export interface SessionOptions {
  readonly root: Directory
  readonly uid: number
  readonly gid: number
  /** Nothing may be changed through this mount. */
  readonly readOnly: boolean
  /** How long the kernel may believe names and attributes. */
  readonly validMs: number
  readonly writeBytesMax: number
  readonly statFs: () => Promise<StatFs>
  readonly reply: (head: Uint8Array, body?: Uint8Array) => void
  readonly log: Log
}

type Handler = (bytes: Buffer, head: RequestHead) => Promise<Uint8Array | undefined>

/** The kernel waits for no answer to these. */
const UNANSWERED: ReadonlySet<number> = new Set([
  FuseOp.FORGET,
  FuseOp.BATCH_FORGET,
  FuseOp.INTERRUPT,
])
const NOTHING = Buffer.alloc(0)

export class FuseSession {
  readonly #options: SessionOptions
  readonly #nodes: NodeTable
  readonly #handles = new Handles()
  readonly #handlers: ReadonlyMap<number, Handler>
  #state: 'new' | 'serving' | 'over' = 'new'
  #unanswered = 0

  constructor(options: SessionOptions) {
    this.#options = options
    this.#nodes = new NodeTable(options.root)
    this.#handlers = this.#table()
  }

  /** Requests without a reply yet. */
  get unanswered(): number {
    return this.#unanswered
  }

  /** `bytes` are borrowed until `release` is called, once. */
  request(bytes: Buffer, release: () => void): void {
    let head: RequestHead
    try {
      head = decodeHead(bytes)
    } catch (error) {
      // Without a head there is nobody to answer.
      this.#options.log.error('fuse.malformed', { reason: String(error) })
      release()
      return
    }
    try {
      this.#take(bytes, head, release)
    } catch (error) {
      if (UNANSWERED.has(head.opcode)) {
        this.#options.log.error('fuse.malformed', { opcode: head.opcode, reason: String(error) })
      } else this.#failed(head, error)
      release()
    }
  }

  /** Closes what is open: nobody else will. Rejects with the first failure of a last flush. */
  async end(): Promise<void> {
    this.#state = 'over'
    await this.#handles.closeAll()
  }

  #take(bytes: Buffer, head: RequestHead, release: () => void): void {
    switch (head.opcode) {
      case FuseOp.READ:
        this.#unanswered++
        this.#read(bytes, head, release)
        return
      case FuseOp.WRITE:
        this.#unanswered++
        this.#write(bytes, head, release)
        return
      case FuseOp.FORGET:
        this.#nodes.forget(head.node, decodeForget(bytes))
        release()
        return
      case FuseOp.BATCH_FORGET:
        for (const { node, lookups } of decodeBatchForget(bytes)) this.#nodes.forget(node, lookups)
        release()
        return
      case FuseOp.INTERRUPT:
        // What is under way at the cluster cannot be taken back; its answer comes when it comes.
        release()
        return
      default:
        this.#unanswered++
        this.#perform(Buffer.from(bytes), head)
        release()
    }
  }

  #perform(bytes: Buffer, head: RequestHead): void {
    const handler = this.#handlers.get(head.opcode)
    if (handler === undefined) {
      this.#send(head, Errno.ENOSYS)
      return
    }
    if (this.#state !== 'serving' && head.opcode !== FuseOp.INIT) {
      this.#send(head, this.#state === 'over' ? Errno.ENOTCONN : Errno.EIO)
      return
    }
    // A handler throws nothing past here, whether it does so at once or later.
    void Promise.resolve()
      .then(() => handler(bytes, head))
      .then(
        (body) => this.#send(head, 0, body),
        (error: unknown) => this.#failed(head, error),
      )
  }

  #failed(head: RequestHead, error: unknown): void {
    const known = error instanceof MalformedRequest ? MALFORMED_ERRNO : errnoOfError(error)
    if (known === undefined) {
      this.#options.log.error('fuse.request.failed', {
        opcode: head.opcode,
        path: this.#nodes.path(head.node),
        reason: describe(error),
      })
    } else if (known === Errno.EIO) {
      this.#options.log.warn('fuse.request.refused', {
        path: this.#nodes.path(head.node),
        reason: error instanceof Error ? error.message : String(error),
      })
    }
    this.#send(head, known ?? Errno.EIO)
  }

  #send({ unique }: RequestHead, errno: number, body: Uint8Array = NOTHING): void {
    this.#unanswered--
    const head = replyHead(unique, errno, errno === 0 ? body.length : 0)
    this.#options.reply(head, errno === 0 && body.length > 0 ? body : undefined)
  }

  #read(bytes: Buffer, head: RequestHead, release: () => void): void {
    const { handle, offset, size } = decodeRead(bytes)
    release()
    const file = this.#handles.file(handle)
    if (file === undefined) this.#send(head, Errno.EBADF)
    else file.read(offset, size, (errno, data) => this.#send(head, errno, data))
  }

  /** The slot with the bytes is given back when the write has ended. */
  #write(bytes: Buffer, head: RequestHead, release: () => void): void {
    const { handle, offset, data } = decodeWrite(bytes)
    const file = this.#handles.file(handle)
    if (file?.write === undefined || this.#options.readOnly) {
      release()
      this.#send(head, file === undefined ? Errno.EBADF : Errno.EROFS)
      return
    }
    file.write(offset, data, (errno, written) => {
      release()
      this.#send(head, errno, errno === 0 ? encodeWritten(written) : undefined)
    })
  }

  #table(): ReadonlyMap<number, Handler> {
    return new Map<number, Handler>([
      [FuseOp.INIT, async (bytes) => this.#init(bytes)],
      [FuseOp.DESTROY, async () => this.#destroy()],
      [FuseOp.LOOKUP, async (bytes, { node }) => this.#lookUp(node, decodeName(bytes))],
      [FuseOp.GETATTR, async (_bytes, { node }) => this.#attr(node)],
      [FuseOp.SETATTR, async (bytes, { node }) => this.#setAttr(bytes, node)],
      [FuseOp.ACCESS, async () => undefined],
      [FuseOp.STATFS, async () => encodeStatFs(await this.#options.statFs())],
      [FuseOp.OPEN, async (bytes, { node }) => this.#open(bytes, node)],
      [FuseOp.CREATE, async (bytes, { node }) => this.#create(bytes, node)],
      [FuseOp.RELEASE, async (bytes) => this.#handles.close(decodeHandle(bytes))],
      [FuseOp.FLUSH, async (bytes) => this.#file(decodeHandle(bytes)).settle?.().then(nothing)],
      [FuseOp.FSYNC, async (bytes) => this.#sync(decodeHandle(bytes))],
      [FuseOp.FSYNCDIR, async () => undefined],
      [FuseOp.FALLOCATE, async (bytes) => this.#allocate(bytes)],
      [FuseOp.LSEEK, async (bytes) => this.#seek(bytes)],
      [FuseOp.OPENDIR, async (_bytes, { node }) => this.#openDirectory(node)],
      [FuseOp.READDIR, async (bytes, { node }) => this.#list(bytes, node)],
      [FuseOp.RELEASEDIR, async (bytes) => this.#handles.closeDirectory(decodeHandle(bytes))],
      [FuseOp.MKDIR, async (bytes, { node }) => this.#makeDirectory(node, decodeMkdir(bytes))],
      [FuseOp.MKNOD, async (bytes, { node }) => this.#makeNode(bytes, node)],
      [FuseOp.UNLINK, async (bytes, { node }) => this.#unlink(node, decodeName(bytes))],
      [FuseOp.RMDIR, async (bytes, { node }) => this.#removeDirectory(node, decodeName(bytes))],
      [FuseOp.RENAME, async (bytes, { node }) => this.#rename(bytes, node)],
      [FuseOp.RENAME2, async (bytes, { node }) => this.#rename(bytes, node)],
      [FuseOp.GETXATTR, (bytes, { node }) => getXattr(this.#node(node), bytes)],
      [FuseOp.LISTXATTR, (bytes, { node }) => listXattr(this.#node(node), bytes)],
      [FuseOp.SETXATTR, (bytes, { node }) => setXattr(this.#writable(node), bytes)],
      [FuseOp.REMOVEXATTR, (bytes, { node }) => removeXattr(this.#writable(node), bytes)],
    ])
  }

  #init(bytes: Buffer): Uint8Array {
    const { major, minor, maxReadahead, flags } = decodeInit(bytes)
    if (major > FUSE_MAJOR) return encodeInitVersion()
    if (major < FUSE_MAJOR || minor < FUSE_MINOR_MIN) throw new FsError(Errno.EPROTO)
    this.#state = 'serving'
    const { ASYNC_READ, BIG_WRITES, ASYNC_DIO, PARALLEL_DIROPS, MAX_PAGES, AUTO_INVAL_DATA } =
      InitFlag
    const wanted =
      ASYNC_READ | BIG_WRITES | ASYNC_DIO | PARALLEL_DIROPS | MAX_PAGES | AUTO_INVAL_DATA
    return encodeInit({
      ...{ minor, maxReadahead, flags: wanted & flags },
      maxWrite: this.#options.writeBytesMax,
      maxPages: this.#options.writeBytesMax / PAGE_BYTES,
      maxBackground: MAX_BACKGROUND,
    })
  }

  #destroy(): undefined {
    this.#state = 'over'
    return undefined
  }

  // ---- names

  #node(id: number): TreeNode {
    const node = this.#nodes.node(id)
    if (node === undefined) throw new FsError(Errno.ENOENT)
    return node
  }

  #writable(id: number): TreeNode {
    if (this.#options.readOnly) throw new FsError(Errno.EROFS)
    return this.#node(id)
  }

  #directory(id: number): Directory {
    const node = this.#node(id)
    if (node.kind !== 'directory') throw new FsError(Errno.ENOTDIR)
    return node
  }

  /** For what changes something. */
  #changeable(id: number): Directory {
    if (this.#options.readOnly) throw new FsError(Errno.EROFS)
    return this.#directory(id)
  }

  async #lookUp(parent: number, name: string): Promise<Uint8Array> {
    if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw new FsError(Errno.ENAMETOOLONG)
    const node = await this.#directory(parent).child(name)
    if (node === undefined) throw new FsError(Errno.ENOENT)
    return this.#entry(parent, name, node)
  }

  async #entry(parent: number, name: string, node: TreeNode): Promise<Uint8Array> {
    const facts = await node.facts()
    const id = this.#nodes.enter(`${this.#nodes.path(parent)}/${name}`, node)
    return encodeEntry(this.#attrOf(id, node, facts), this.#options)
  }

  async #attr(id: number): Promise<Uint8Array> {
    const node = this.#node(id)
    return encodeAttr(this.#attrOf(id, node, await node.facts()), this.#options)
  }

  #attrOf(id: number, node: TreeNode, facts: Awaited<ReturnType<TreeNode['facts']>>): Attr {
    const { uid, gid, readOnly, writeBytesMax } = this.#options
    const type = node.kind === 'directory' ? S_IFDIR : S_IFREG
    const mode = type | (readOnly ? facts.mode & 0o555 : facts.mode)
    return { ...facts, node: id, mode, uid, gid, ioBytes: writeBytesMax }
  }

  async #makeDirectory(parent: number, name: string): Promise<Uint8Array> {
    const directory = this.#changeable(parent)
    if (directory.makeDirectory === undefined) throw new FsError(Errno.EPERM)
    await directory.makeDirectory(name)
    return this.#lookUp(parent, name)
  }

  async #makeNode(bytes: Buffer, parent: number): Promise<Uint8Array> {
    const { mode, name } = decodeMknod(bytes)
    if ((mode & 0o170000) !== S_IFREG) throw new FsError(Errno.EPERM)
    await this.#makeFile(parent, name)
    return this.#lookUp(parent, name)
  }

  async #makeFile(parent: number, name: string): Promise<void> {
    const directory = this.#changeable(parent)
    if (directory.makeFile === undefined) throw new FsError(Errno.EPERM)
    await directory.makeFile(name)
  }

  async #unlink(parent: number, name: string): Promise<undefined> {
    const directory = this.#changeable(parent)
    if (directory.removeFile === undefined) throw new FsError(Errno.EPERM)
    await directory.removeFile(name)
    return undefined
  }

  async #removeDirectory(parent: number, name: string): Promise<undefined> {
    const directory = this.#changeable(parent)
    if (directory.removeDirectory === undefined) throw new FsError(Errno.EPERM)
    await directory.removeDirectory(name)
    return undefined
  }

  async #rename(bytes: Buffer, parent: number): Promise<undefined> {
    const { newDirectory, flags, name, newName } = decodeRename(bytes)
    const from = this.#changeable(parent)
    const to = this.#changeable(newDirectory)
    if (flags !== 0) throw new FsError(Errno.EINVAL)
    if (from.renameFile === undefined) throw new FsError(Errno.EPERM)
    await from.renameFile(name, newName, to)
    return undefined
  }

  async #setAttr(bytes: Buffer, id: number): Promise<Uint8Array> {
    const { valid, handle, size } = decodeSetAttr(bytes)
    const node = this.#node(id)
    if (this.#options.readOnly) throw new FsError(Errno.EROFS)
    // Owners and modes are those of the mount.
    if ((valid & (SetAttr.UID | SetAttr.GID)) !== 0) throw new FsError(Errno.EPERM)
    if ((valid & SetAttr.SIZE) !== 0) {
      if (node.kind !== 'file') throw new FsError(Errno.EISDIR)
      const file = (valid & SetAttr.FH) === 0 ? undefined : this.#handles.file(handle)
      if (file?.truncate !== undefined) await file.truncate(size)
      else if (node.truncate !== undefined) await node.truncate(size)
      else throw new FsError(Errno.EPERM)
    }
    return this.#attr(id)
  }

  // ---- open files

  #file(handle: number): OpenFile {
    const file = this.#handles.file(handle)
    if (file === undefined) throw new FsError(Errno.EBADF)
    return file
  }

  async #open(bytes: Buffer, id: number): Promise<Uint8Array> {
    const node = this.#node(id)
    if (node.kind !== 'file') throw new FsError(Errno.EISDIR)
    return this.#opened(node, decodeOpenFlags(bytes))
  }

  async #opened(node: FileNode, flags: number): Promise<Uint8Array> {
    const writes = (flags & O_ACCMODE) !== 0
    if (writes && this.#options.readOnly) throw new FsError(Errno.EROFS)
    const file = await node.open({ writes })
    const { DIRECT_IO, PARALLEL_DIRECT_WRITES } = OpenFlag
    return encodeOpen(
      this.#handles.open(file),
      file.isDirect ? DIRECT_IO | PARALLEL_DIRECT_WRITES : 0,
    )
  }

  async #create(bytes: Buffer, parent: number): Promise<Uint8Array> {
    const { flags, name } = decodeCreate(bytes)
    const directory = this.#directory(parent)
    const known = await directory.child(name)
    if (known === undefined) await this.#makeFile(parent, name)
    const node = known ?? (await directory.child(name))
    if (node === undefined) throw new FsError(Errno.ENOENT)
    if (node.kind !== 'file') throw new FsError(Errno.EISDIR)
    const opened = await this.#opened(node, flags)
    return Buffer.concat([await this.#entry(parent, name, node), opened])
  }

  #sync(handle: number): Promise<undefined> {
    const file = this.#file(handle)
    return new Promise((resolve, reject) => {
      const done = (errno: number): void => {
        if (errno === 0) resolve(undefined)
        else reject(new FsError(errno))
      }
      if (file.sync === undefined) done(0)
      else file.sync(done)
    })
  }

  async #allocate(bytes: Buffer): Promise<undefined> {
    const { handle, offset, length, mode } = decodeFallocate(bytes)
    const file = this.#file(handle)
    if (file.allocate === undefined) throw new FsError(Errno.EOPNOTSUPP)
    await file.allocate({ offset, length }, allocationOf(mode))
    return undefined
  }

  async #seek(bytes: Buffer): Promise<Uint8Array> {
    const { handle, offset, whence } = decodeSeek(bytes)
    const file = this.#file(handle)
    if (file.seek === undefined) throw new FsError(Errno.ENOSYS)
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw new FsError(Errno.EINVAL)
    const found = await file.seek(offset, whence === SEEK_DATA ? 'data' : 'hole')
    if (found === undefined) throw new FsError(Errno.ENXIO)
    return encodeOffset(found)
  }

  async #openDirectory(id: number): Promise<Uint8Array> {
    return encodeOpen(this.#handles.openDirectory(await this.#directory(id).list()), 0)
  }

  async #list(bytes: Buffer, id: number): Promise<Uint8Array> {
    const { handle, offset, size } = decodeRead(bytes)
    const listed = this.#handles.listing(handle)
    if (listed === undefined) throw new FsError(Errno.EBADF)
    const path = this.#nodes.path(id)
    return listingPage(listed, {
      ...{ self: id, from: offset, bytesMax: size },
      idOf: (name) => this.#nodes.idOf(`${path}/${name}`),
    })
  }
}

function nothing(): undefined {
  return undefined
}
