/**
 * One mount: requests of the kernel in, replies out, and nothing else. Every request that wants a reply gets exactly one, also
 * when a node of the tree throws; what is answered late holds up nobody else.
 *
 *   new --INIT--> serving --DESTROY or the device's end--> over
 */
import { describe, type Log } from '../base/log.js'
import {
  Errno,
  FuseOp,
  O_ACCMODE,
  OpenFlag,
  RENAME_NOREPLACE,
  S_IFDIR,
  S_IFREG,
  SetAttr,
} from '../wire/fuse/constants.js'
import {
  type Attr,
  encodeAttr,
  encodeEntry,
  encodeOpen,
  encodeStatFs,
  encodeWritten,
  replyHead,
  type StatFs,
  type Validity,
} from '../wire/fuse/replies.js'
import {
  decodeBatchForget,
  decodeCreate,
  decodeForget,
  decodeHandle,
  decodeHead,
  decodeInterrupt,
  decodeMkdir,
  decodeMknod,
  decodeName,
  decodeOpenFlags,
  decodeRead,
  decodeRename,
  decodeSetAttr,
  decodeWrite,
  MALFORMED_ERRNO,
  MalformedRequest,
  type RequestHead,
  readU64,
} from '../wire/fuse/requests.js'
import type { Clock } from '../world/world.js'
import { errnoOfError, explains, FsError } from './errors.js'
import { allocateFile, seekFile, settleFile, syncFile } from './file-requests.js'
import { greet } from './greeting.js'
import { Handles } from './handles.js'
import { listingPage, plusPage } from './listing.js'
import type { Directory, Facts, FileNode, TreeNode } from './node.js'
import { NodeTable } from './node-table.js'
import { refuseOwnership } from './ownership.js'
import { Pending } from './pending.js'
import { getXattr, isForeign, listXattr, removeXattr, setXattr } from './xattr-requests.js'

const NAME_BYTES_MAX = 255

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
  readonly clock: Pick<Clock, 'after'>
}

type Waited = Pick<RequestHead, 'unique'>
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
  readonly #pending: Pending

  constructor(options: SessionOptions) {
    this.#options = options
    this.#nodes = new NodeTable(options.root)
    this.#handlers = this.#table()
    this.#pending = new Pending(options.clock, ({ unique }) => this.#send({ unique }, Errno.EINTR))
  }

  /** Requests without a reply yet. */
  get unanswered(): number {
    return this.#pending.size
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
        this.#pending.begin(head)
        this.#read(bytes, head, release)
        return
      case FuseOp.WRITE:
        this.#pending.begin(head)
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
        this.#pending.interrupt(decodeInterrupt(bytes))
        release()
        return
      default:
        this.#pending.begin(head)
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
    if (head.opcode === FuseOp.GETXATTR && isForeign(bytes)) {
      this.#send(head, Errno.ENODATA)
      return
    }
    // A handler throws nothing past here, whether it does so at once or later.
    void Promise.resolve()
      .then(() => handler(bytes, head))
      .then(
        (body) => {
          if (!this.#send(head, 0, body)) this.#undo(head, body)
        },
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
    } else if (known === Errno.EIO || explains(error)) {
      this.#options.log.warn('fuse.request.refused', {
        path: this.#nodes.path(head.node),
        reason: error instanceof Error ? error.message : String(error),
      })
    }
    this.#send(head, known ?? Errno.EIO)
  }

  /** False: the kernel has had its answer. */
  #send({ unique }: Waited, errno: number, body: Uint8Array = NOTHING): boolean {
    if (!this.#pending.end(unique)) return false
    const head = replyHead(unique, errno, errno === 0 ? body.length : 0)
    this.#options.reply(head, errno === 0 && body.length > 0 ? body : undefined)
    return true
  }

  /** What was found or opened for somebody who does not wait any more. */
  #undo({ opcode }: RequestHead, body: Uint8Array | undefined): void {
    const id = body === undefined || body.length < 8 ? 0 : readU64(Buffer.from(body), 0)
    if (opcode === FuseOp.LOOKUP) this.#nodes.forget(id, 1)
    else if (opcode === FuseOp.OPENDIR) this.#handles.closeDirectory(id)
    else if (opcode === FuseOp.OPEN) {
      this.#handles.close(id).catch((error: unknown) => {
        this.#options.log.warn('close.failed', { reason: String(error) })
      })
    }
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
      [FuseOp.FLUSH, (bytes) => settleFile(this.#handles, bytes)],
      [FuseOp.FSYNC, (bytes) => syncFile(this.#handles, bytes)],
      [FuseOp.FSYNCDIR, async () => undefined],
      [FuseOp.FALLOCATE, (bytes) => allocateFile(this.#handles, bytes)],
      [FuseOp.LSEEK, (bytes) => seekFile(this.#handles, bytes)],
      [FuseOp.OPENDIR, async (_bytes, { node }) => this.#openDirectory(node)],
      [FuseOp.READDIR, async (bytes, { node }) => this.#list(bytes, node, false)],
      [FuseOp.READDIRPLUS, async (bytes, { node }) => this.#list(bytes, node, true)],
      [FuseOp.RELEASEDIR, async (bytes) => this.#handles.closeDirectory(decodeHandle(bytes))],
      [FuseOp.MKDIR, async (bytes, { node }) => this.#makeDirectory(node, decodeMkdir(bytes))],
      [FuseOp.MKNOD, async (bytes, { node }) => this.#makeNode(bytes, node)],
      [FuseOp.SYMLINK, noLinks],
      [FuseOp.LINK, noLinks],
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
    const { reply, isAgreed } = greet(bytes, this.#options.writeBytesMax)
    if (isAgreed) this.#state = 'serving'
    return reply
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
    return encodeEntry(this.#attrOf(id, node, facts), this.#validity(facts))
  }

  async #attr(id: number): Promise<Uint8Array> {
    const node = this.#node(id)
    const facts = await node.facts()
    return encodeAttr(this.#attrOf(id, node, facts), this.#validity(facts))
  }

  /** `tar -S` does not read files without blocks: that a disk has none the kernel may not remember. */
  #validity({ sizeBytes, allocatedBytes }: Facts): Validity {
    const { validMs } = this.#options
    return { namesMs: validMs, attrsMs: sizeBytes > 0 && allocatedBytes === 0 ? 0 : validMs }
  }

  #attrOf(id: number, node: TreeNode, facts: Facts): Attr {
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
    const directory = this.#changeable(parent)
    if ((flags & ~RENAME_NOREPLACE) !== 0) throw new FsError(Errno.EINVAL)
    // EXDEV would make mv copy, and what is in these folders cannot be made by copying it.
    if (newDirectory !== parent || directory.rename === undefined) throw new FsError(Errno.EPERM)
    if (name === newName) return undefined
    await directory.rename(name, newName, flags === 0)
    const path = this.#nodes.path(parent)
    this.#nodes.moved(`${path}/${name}`, `${path}/${newName}`)
    return undefined
  }

  async #setAttr(bytes: Buffer, id: number): Promise<Uint8Array> {
    const request = decodeSetAttr(bytes)
    const { valid, handle, size } = request
    const node = this.#node(id)
    if (this.#options.readOnly) throw new FsError(Errno.EROFS)
    if ((valid & (SetAttr.UID | SetAttr.GID | SetAttr.MODE)) !== 0) {
      refuseOwnership(request, this.#attrOf(id, node, await node.facts()))
    }
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

  async #openDirectory(id: number): Promise<Uint8Array> {
    return encodeOpen(this.#handles.openDirectory(await this.#directory(id).list()), 0)
  }

  async #list(bytes: Buffer, id: number, isPlus: boolean): Promise<Uint8Array> {
    const { handle, offset, size } = decodeRead(bytes)
    const listed = this.#handles.listing(handle)
    if (listed === undefined) throw new FsError(Errno.EBADF)
    const path = this.#nodes.path(id)
    const idOf = (name: string): number => {
      if (name === '.' || name === '..') return id
      return this.#nodes.idOf(`${path}/${name}`)
    }
    const wish = { from: offset, bytesMax: size, idOf }
    if (!isPlus) return listingPage(listed, wish)
    return plusPage(listed, { ...wish, look: (name, node) => this.#entry(id, name, node) })
  }
}

async function noLinks(): Promise<never> {
  throw new FsError(Errno.EPERM)
}
