/** TCP and unix stream sockets. */
import { lstatSync, readFileSync, readlinkSync, unlinkSync } from 'node:fs'
import net from 'node:net'
import { type Log, silentLog } from '../../base/log.js'
import type { Address, Connection, Listener, Network, PassedSocket } from '../world.js'
import { readingSocket, rereading, SocketConnection, socketOptions } from './connection.js'
import { descriptorFor } from './service.js'

/** sun_path holds 108 bytes with its NUL (unix(7)); libuv would cut a longer one silently. */
const UNIX_PATH_BYTES_MAX = 107
const BACKLOG = 511

export class NodeNetwork implements Network {
  readonly #log: Log

  constructor(log: Log = silentLog) {
    this.#log = log
  }

  /**
   * Rejects with an errno error: EADDRINUSE, EADDRNOTAVAIL, EACCES, ENAMETOOLONG, ... The socket file
   * of a server that died is replaced; one that answers, or a file that is no socket, is not touched.
   */
  async listen(
    at: Address | PassedSocket,
    accept: (connection: Connection) => void,
  ): Promise<Listener> {
    const options = { highWaterMark: socketOptions.highWaterMark, pauseOnConnect: true }
    const server = net.createServer(options, (socket) =>
      accept(new SocketConnection(rereading(socket))),
    )
    try {
      await ('fd' in at ? takeOver(server, at) : bind(server, at))
    } catch (error) {
      if ('fd' in at) throw error
      if (!('path' in at) || !(await isStale(at.path, error))) throw error
      this.#log.warn('listen.replace-stale', { path: at.path })
      unlinkSync(at.path)
      await bind(server, at)
    }
    // A connection that could not be accepted (no descriptors left) is its client's loss, not ours.
    server.on('error', (error) => this.#log.error('accept.failed', { reason: error.message }))
    return {
      address: boundAddress(server, at),
      // The port is free and the socket file gone when `close` returns; its callback would come
      // only after the last connection has ended.
      close: async () => {
        if (server.listening) server.close()
      },
    }
  }

  /** Rejects with an errno error; ETIMEDOUT after `timeoutMs`. */
  connect(to: Address, timeoutMs: number): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const problem = pathProblem(to)
      if (problem !== undefined) {
        reject(problem)
        return
      }
      const socket = readingSocket()
      const timer = setTimeout(() => {
        socket.destroy(failure('ETIMEDOUT', `no connection within ${timeoutMs} ms`, to))
      }, timeoutMs)
      const failed = (error: Error): void => {
        clearTimeout(timer)
        reject(error)
      }
      socket.once('error', failed)
      socket.once('connect', () => {
        clearTimeout(timer)
        // Its own listener first: at no moment is an error without one.
        const connection = new SocketConnection(socket)
        socket.off('error', failed)
        resolve(connection)
      })
      socket.connect(target(to))
    })
  }
}

function target(to: Address): net.SocketConnectOpts {
  return 'path' in to ? { path: to.path } : { host: to.host, port: to.port }
}

function bind(server: net.Server, at: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    const problem = pathProblem(at)
    if (problem !== undefined) {
      reject(problem)
      return
    }
    server.once('error', reject)
    server.listen({ ...target(at), backlog: BACKLOG }, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

/** Rejects with an Error for people when it is no socket a server can listen at. */
function takeOver(server: net.Server, { fd }: PassedSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      const need = 'it must be a listening stream socket (ListenStream=, Accept=no)'
      reject(new Error(`the socket passed as descriptor ${fd}: ${error.message}; ${need}`))
    }
    server.once('error', failed)
    try {
      server.listen({ fd: descriptorFor(fd), backlog: BACKLOG }, () => {
        server.off('error', failed)
        resolve()
      })
    } catch (error) {
      // Node throws what it can tell from the descriptor alone.
      failed(error instanceof Error ? error : new Error(String(error)))
    }
  })
}

function boundAddress(server: net.Server, asked: Address | PassedSocket): Address {
  const found = server.address()
  if (found !== null && typeof found !== 'string') return { host: found.address, port: found.port }
  return 'fd' in asked ? { path: unixName(asked.fd) } : asked
}

/** The kernel's name of a unix socket; Node has it only of those it has bound itself. */
function unixName(fd: number): string {
  const [, inode] = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`)) ?? []
  for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
    const [, , , , , , number, ...name] = line.split(' ').filter(Boolean)
    if (number === inode && name.length > 0) return name.join(' ')
  }
  return `descriptor ${fd}`
}

/** Whether the name is taken by the socket of a server that is no more. */
async function isStale(path: string, error: unknown): Promise<boolean> {
  if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') return false
  // A plain file refuses a connection in the same words.
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false
  return new Promise((resolve) => {
    const probe = net.connect({ path })
    const answer = (stale: boolean): void => {
      probe.destroy()
      resolve(stale)
    }
    probe.once('connect', () => answer(false))
    // Anything but a refusal (a full backlog: EAGAIN) means that somebody is there.
    probe.once('error', (why: NodeJS.ErrnoException) => answer(why.code === 'ECONNREFUSED'))
  })
}

function pathProblem(at: Address): Error | undefined {
  if (!('path' in at)) return undefined
  if (at.path.length === 0 || at.path.includes('\0')) {
    return failure('EINVAL', 'not the name of a socket', at)
  }
  if (Buffer.byteLength(at.path) > UNIX_PATH_BYTES_MAX) {
    return failure('ENAMETOOLONG', `more than ${UNIX_PATH_BYTES_MAX} bytes`, at)
  }
  return undefined
}

function failure(code: string, text: string, at: Address): Error {
  const where = 'path' in at ? at.path : `${at.host}:${at.port}`
  return Object.assign(new Error(`${code}: ${text}, ${where}`), { code })
}
