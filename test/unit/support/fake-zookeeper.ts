/**
 * A ZooKeeper ensemble in memory: one tree behind several servers. Sessions expire, ephemeral and sequential
 * nodes, watches (also over reconnections), all-or-nothing changes; servers can be killed, hung and started again.
 */
import { JuteFrames, JuteReader, JuteWriter } from '../../../src/wire/zookeeper/jute.js'
import { createFlags, ZkCode, ZkOp, ZkXid } from '../../../src/wire/zookeeper/messages.js'
import type { Connection } from '../../../src/world/world.js'
import type { Card, MemoryNetwork } from './memory-network.js'
import type { VirtualClock } from './virtual-clock.js'

const TICK_MS = 50
const DIGITS = 10

interface TreeNode {
  data: Buffer
  version: number
  /** Creations below it, ever: the next sequence number. */
  creations: number
  children: number
  readonly owner: bigint
  readonly czxid: bigint
  mzxid: bigint
  pzxid: bigint
}

interface Session {
  readonly id: bigint
  readonly password: Buffer
  readonly timeoutMs: number
  heardAtMs: number
  link: Link | undefined
}

const EVENT = { created: 1, deleted: 2, changed: 3, children: 4 } as const
type Kind = 'data' | 'exists' | 'children'

class Refused extends Error {
  readonly code: number
  constructor(code: number) {
    super(`refused ${code}`)
    this.code = code
  }
}

/** One connection of a client to one server. */
class Link {
  readonly server: FakeServer
  readonly connection: Connection
  readonly frames = new JuteFrames()
  readonly watches: Record<Kind, Set<string>> = {
    data: new Set(),
    exists: new Set(),
    children: new Set(),
  }
  session: Session | undefined

  constructor(server: FakeServer, connection: Connection) {
    this.server = server
    this.connection = connection
  }

  send(bytes: Buffer): void {
    if (!this.server.hung) this.connection.write(bytes)
  }

  fire(kind: Kind, path: string, event: keyof typeof EVENT): boolean {
    if (!this.watches[kind].delete(path)) return false
    this.event(path, event)
    return true
  }

  event(path: string, event: keyof typeof EVENT): void {
    const into = new JuteWriter().int(ZkXid.EVENT).long(-1n).int(0)
    this.send(into.int(EVENT[event]).int(3).text(path).frame())
  }
}

class FakeServer {
  readonly port: number
  readonly links = new Set<Link>()
  hung = false
  card: Card | undefined

  constructor(port: number) {
    this.port = port
  }
}

export class FakeZookeeper {
  readonly #clock: VirtualClock
  readonly #network: MemoryNetwork
  readonly #servers: FakeServer[]
  readonly #sessions = new Map<bigint, Session>()
  #tree = new Map<string, TreeNode>([['', newNode(Buffer.alloc(0), 0n, 0n)]])
  #zxid = 0n
  #nextSession = 0x100n
  #stopped = false
  /** Called before each change is made; true: it is made, and its reply lost with the connection. */
  loseReply: (type: number, path: string) => boolean = () => false

  constructor(clock: VirtualClock, network: MemoryNetwork, ports: readonly number[]) {
    this.#clock = clock
    this.#network = network
    this.#servers = ports.map((port) => new FakeServer(port))
    for (const { port } of this.#servers) void this.start(port)
    this.#tick()
  }

  stop(): void {
    this.#stopped = true
    for (const { port } of this.#servers) this.kill(port)
  }

  async start(port: number): Promise<void> {
    const server = this.#server(port)
    server.hung = false
    server.card = this.#network.card()
    // Its clients had no chance meanwhile: a new leader gives every session its whole time.
    if (this.#servers.filter(({ card }) => card !== undefined).length === 1) {
      for (const session of this.#sessions.values()) session.heardAtMs = this.#clock.now()
    }
    await server.card.listen({ host: '127.0.0.1', port }, (connection) => {
      const link = new Link(server, connection)
      server.links.add(link)
      connection.on({
        data: (chunk) => {
          if (server.hung) return
          for (const content of link.frames.push(chunk)) this.#receive(link, content)
        },
        close: () => {
          server.links.delete(link)
          if (link.session?.link === link) link.session.link = undefined
        },
        drain: () => undefined,
      })
    })
  }

  kill(port: number): void {
    const server = this.#server(port)
    server.card?.unplug()
    server.card = undefined
    for (const link of server.links) if (link.session?.link === link) link.session.link = undefined
    server.links.clear()
  }

  /** Accepts and keeps connections, and never says anything. */
  hang(port: number): void {
    this.#server(port).hung = true
  }

  /** The ensemble gives the session up, as after a time-out. */
  expire(id: bigint): void {
    const session = this.#sessions.get(id)
    if (session === undefined) return
    this.#sessions.delete(id)
    this.#dropEphemerals(id)
    session.link?.connection.destroy()
  }

  /** Of the session that holds an ephemeral node. */
  ownerOf(path: string): bigint {
    return this.#tree.get(path)?.owner ?? 0n
  }

  names(path: string): string[] {
    return this.#childrenOf(path)
  }

  data(path: string): Buffer | undefined {
    return this.#tree.get(path)?.data
  }

  /** As an administrator with a tool of his own would. */
  remove(path: string): void {
    this.#delete(path, -1)
  }

  set(path: string, data: Buffer): void {
    this.#set(path, data, -1)
  }

  put(path: string, data: Buffer, flags = 0): string {
    return this.#create(path, data, flags, 0n)
  }

  get sessions(): number {
    return this.#sessions.size
  }

  #server(port: number): FakeServer {
    const server = this.#servers.find((one) => one.port === port)
    if (server === undefined) throw new Error(`no server at ${port}`)
    return server
  }

  #tick(): void {
    if (this.#stopped) return
    const isUp = this.#servers.some(({ card }) => card !== undefined)
    for (const session of this.#sessions.values()) {
      const silentMs = this.#clock.now() - session.heardAtMs
      if (isUp && silentMs > session.timeoutMs) this.expire(session.id)
    }
    this.#clock.after(TICK_MS, () => this.#tick())
  }

  #receive(link: Link, content: Buffer): void {
    const from = new JuteReader(content)
    if (link.session === undefined) {
      this.#greet(link, from)
      return
    }
    link.session.heardAtMs = this.#clock.now()
    const [xid, type] = [from.int(), from.int()]
    if (type !== ZkOp.PING && link.session.link !== link) {
      this.#reply(link, xid, ZkCode.SESSION_MOVED)
      return
    }
    const body = new JuteWriter()
    let code: number = ZkCode.OK
    const before = this.#zxid
    try {
      this.#perform(link, type, from, body)
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      code = error.code
    }
    const isChange = this.#zxid !== before
    if (isChange && this.loseReply(type, this.#lastPath)) link.connection.destroy()
    else this.#reply(link, xid, code, body)
    if (type === ZkOp.CLOSE) {
      this.#sessions.delete(link.session.id)
      this.#dropEphemerals(link.session.id)
      link.connection.destroy()
    }
  }

  #reply(link: Link, xid: number, code: number, body = new JuteWriter()): void {
    const head = new JuteWriter().int(xid).long(this.#zxid).int(code).frame()
    const rest = code === ZkCode.OK ? body.frame().subarray(4) : Buffer.alloc(0)
    const frame = Buffer.concat([head, rest])
    frame.writeInt32BE(frame.length - 4)
    link.send(frame)
  }

  #greet(link: Link, from: JuteReader): void {
    from.int()
    const lastZxid = from.long()
    const timeoutMs = from.int()
    const id = from.long()
    const password = from.buffer()
    if (lastZxid > this.#zxid) {
      link.connection.destroy()
      return
    }
    const known = this.#sessions.get(id)
    const isRight = known?.password.equals(password) === true
    const session = id === 0n ? this.#newSession(timeoutMs) : isRight ? known : undefined
    const answer = new JuteWriter().int(0).int(session?.timeoutMs ?? 0)
    answer
      .long(session?.id ?? 0n)
      .buffer(session?.password ?? Buffer.alloc(16))
      .bool(false)
    link.send(answer.frame())
    if (session === undefined) return
    session.heardAtMs = this.#clock.now()
    session.link = link
    link.session = session
  }

  #newSession(timeoutMs: number): Session {
    const id = this.#nextSession++
    const password = Buffer.alloc(16, Number(id & 0xffn))
    const session = { id, password, timeoutMs, heardAtMs: this.#clock.now(), link: undefined }
    this.#sessions.set(id, session)
    return session
  }

  #perform(link: Link, type: number, from: JuteReader, into: JuteWriter): void {
    const owner = link.session!.id
    switch (type) {
      case ZkOp.PING:
      case ZkOp.CLOSE:
        return
      case ZkOp.SYNC:
        into.text(from.text())
        return
      case ZkOp.EXISTS:
      case ZkOp.GET_DATA:
      case ZkOp.GET_CHILDREN:
        this.#lookUp(link, type, from, into)
        return
      case ZkOp.SET_WATCHES:
        this.#setWatches(link, from)
        return
      case ZkOp.MULTI:
        this.#multi(from, into, owner)
        return
      default:
        this.#change(type, from, into, owner)
    }
  }

  #lastPath = ''

  #change(type: number, from: JuteReader, into: JuteWriter, owner: bigint): void {
    const path = from.text()
    this.#lastPath = path
    switch (type) {
      case ZkOp.CREATE: {
        const data = Buffer.from(from.buffer())
        const acls = from.int()
        for (let i = 0; i < acls; i++) {
          from.int()
          from.text()
          from.text()
        }
        into.text(this.#create(path, data, from.int(), owner))
        return
      }
      case ZkOp.SET_DATA: {
        const data = Buffer.from(from.buffer())
        writeStat(into, this.#set(path, data, from.int()))
        return
      }
      case ZkOp.DELETE:
        this.#delete(path, from.int())
        return
      case ZkOp.CHECK: {
        const version = from.int()
        if (version !== -1 && this.#node(path).version !== version) {
          throw new Refused(ZkCode.BAD_VERSION)
        }
        return
      }
      default:
        throw new Refused(-6)
    }
  }

  #multi(from: JuteReader, into: JuteWriter, owner: bigint): void {
    const before = new Map([...this.#tree].map(([path, node]) => [path, { ...node }]))
    const results: (() => void)[] = []
    let refusal = 0
    for (;;) {
      const type = from.int()
      const done = from.bool()
      from.int()
      if (done) break
      const body = new JuteWriter()
      try {
        this.#change(type, from, body, owner)
        const bytes = body.frame().subarray(4)
        results.push(() => {
          into.int(type).bool(false).int(0)
          into.raw(bytes)
        })
      } catch (error) {
        if (!(error instanceof Refused)) throw error
        refusal = error.code
        this.#tree = before
        results.push(() => into.int(-1).bool(false).int(refusal).int(refusal))
        break
      }
    }
    // Of a refused one only the refusal itself is told: a client asks for no more.
    for (const write of refusal === 0 ? results : results.slice(-1)) write()
    into.int(-1).bool(true).int(-1)
  }

  #lookUp(link: Link, type: number, from: JuteReader, into: JuteWriter): void {
    const [path, watch] = [from.text(), from.bool()]
    const node = this.#tree.get(path)
    if (watch && node === undefined && type === ZkOp.EXISTS) link.watches.exists.add(path)
    if (node === undefined) throw new Refused(ZkCode.NO_NODE)
    if (watch) link.watches[type === ZkOp.GET_CHILDREN ? 'children' : 'data'].add(path)
    if (type === ZkOp.GET_CHILDREN) into.texts(this.#childrenOf(path))
    else {
      if (type === ZkOp.GET_DATA) into.buffer(node.data)
      writeStat(into, node)
    }
  }

  #setWatches(link: Link, from: JuteReader): void {
    const since = from.long()
    for (const path of from.texts()) {
      const node = this.#tree.get(path)
      if (node === undefined) link.event(path, 'deleted')
      else if (node.mzxid > since) link.event(path, 'changed')
      else link.watches.data.add(path)
    }
    for (const path of from.texts()) {
      if (this.#tree.has(path)) link.event(path, 'created')
      else link.watches.exists.add(path)
    }
    for (const path of from.texts()) {
      const node = this.#tree.get(path)
      if (node === undefined) link.event(path, 'deleted')
      else if (node.pzxid > since) link.event(path, 'children')
      else link.watches.children.add(path)
    }
  }

  #node(path: string): TreeNode {
    const node = this.#tree.get(path)
    if (node === undefined) throw new Refused(ZkCode.NO_NODE)
    return node
  }

  #childrenOf(path: string): string[] {
    const start = `${path}/`
    return [...this.#tree.keys()]
      .filter((key) => key.startsWith(start) && !key.slice(start.length).includes('/'))
      .map((key) => key.slice(start.length))
  }

  #create(asked: string, data: Buffer, flags: number, session: bigint): string {
    const { ephemeral, sequential } = createFlags(flags)
    const parentPath = asked.slice(0, asked.lastIndexOf('/'))
    const parent = this.#node(parentPath)
    const number = String(parent.creations).padStart(DIGITS, '0')
    const path = sequential ? `${asked}${number}` : asked
    if (this.#tree.has(path)) throw new Refused(ZkCode.NODE_EXISTS)
    this.#zxid++
    parent.creations++
    parent.children++
    parent.pzxid = this.#zxid
    this.#tree.set(path, newNode(data, ephemeral ? session : 0n, this.#zxid))
    this.#fire(path, 'created', ['data', 'exists'])
    this.#fire(parentPath, 'children', ['children'])
    return path
  }

  #set(path: string, data: Buffer, version: number): TreeNode {
    const node = this.#node(path)
    if (version !== -1 && node.version !== version) throw new Refused(ZkCode.BAD_VERSION)
    this.#zxid++
    node.data = data
    node.version++
    node.mzxid = this.#zxid
    this.#fire(path, 'changed', ['data', 'exists'])
    return node
  }

  #delete(path: string, version: number): void {
    const node = this.#node(path)
    if (version !== -1 && node.version !== version) throw new Refused(ZkCode.BAD_VERSION)
    if (node.children > 0) throw new Refused(ZkCode.NOT_EMPTY)
    this.#zxid++
    const parentPath = path.slice(0, path.lastIndexOf('/'))
    const parent = this.#node(parentPath)
    parent.children--
    parent.pzxid = this.#zxid
    this.#tree.delete(path)
    this.#fire(path, 'deleted', ['data', 'exists', 'children'])
    this.#fire(parentPath, 'children', ['children'])
  }

  #dropEphemerals(id: bigint): void {
    for (const [path, node] of [...this.#tree]) if (node.owner === id) this.#delete(path, -1)
  }

  #fire(path: string, event: keyof typeof EVENT, kinds: readonly Kind[]): void {
    for (const { links } of this.#servers) {
      for (const link of links) {
        let isTold = false
        for (const kind of kinds) {
          if (isTold) link.watches[kind].delete(path)
          else isTold = link.fire(kind, path, event)
        }
      }
    }
  }
}

function newNode(data: Buffer, owner: bigint, zxid: bigint): TreeNode {
  const counts = { version: 0, creations: 0, children: 0 }
  return { data, ...counts, owner, czxid: zxid, mzxid: zxid, pzxid: zxid }
}

function writeStat(into: JuteWriter, node: TreeNode): void {
  const { czxid, mzxid, version, creations, children, owner, data, pzxid } = node
  into.long(czxid).long(mzxid).long(0n).long(0n)
  into
    .int(version)
    .int(creations * 2 - children)
    .int(0)
  into.long(owner).int(data.length).int(children).long(pzxid)
}
