/**
 * `-c zookeeper:HOST[:PORT][,HOST[:PORT]...][/CLUSTER][,timeout=TIME]` (cluster spec, section 10.1), in words
 * for people when it is not that. A timeout is `10s`, `500ms` or plain milliseconds.
 */
export interface ZkServer {
  readonly host: string
  readonly port: number
}

export interface ZookeeperOptions {
  readonly servers: readonly ZkServer[]
  /** Path of the cluster's nodes, beginning with a slash: one ensemble serves many clusters. */
  readonly root: string
  readonly timeoutMs: number
}

export const ZOOKEEPER_PORT = 2181
const ROOT_DEFAULT = '/sheepdog'
const TIMEOUT_MS_DEFAULT = 30_000
const TIMEOUT_MS_MIN = 500
const TIMEOUT_MS_MAX = 3_600_000
const SERVERS_MAX = 64
const USAGE = 'zookeeper:HOST[:PORT][,HOST[:PORT]...][/CLUSTER][,timeout=10s]'

/** Throws an Error that names the part and the remedy. */
export function parseZookeeperOptions(text: string): ZookeeperOptions {
  const { rest, timeoutMs } = cutTimeout(text)
  const slash = rest.indexOf('/')
  const hosts = slash < 0 ? rest : rest.slice(0, slash)
  const root = slash < 0 ? ROOT_DEFAULT : rest.slice(slash)
  checkRoot(root)
  const servers = hosts.split(',').map(parseServer)
  if (servers.length > SERVERS_MAX) throw wrong(`more than ${SERVERS_MAX} servers`)
  return { servers, root, timeoutMs }
}

function wrong(what: string): Error {
  return new Error(`-c zookeeper: ${what}; it is ${USAGE}`)
}

function cutTimeout(text: string): { readonly rest: string; readonly timeoutMs: number } {
  const at = text.search(/,[a-z]+=/)
  if (at < 0) {
    if (text.includes('=')) throw wrong(`'${text}' has no server before its options`)
    return { rest: text, timeoutMs: TIMEOUT_MS_DEFAULT }
  }
  const option = text.slice(at + 1)
  const [, number, unit = 'ms'] = /^timeout=(\d+)(ms|s)?$/.exec(option) ?? []
  if (number === undefined) throw wrong(`'${option}' is not understood`)
  const timeoutMs = Number(number) * (unit === 's' ? 1000 : 1)
  if (timeoutMs < TIMEOUT_MS_MIN || timeoutMs > TIMEOUT_MS_MAX) {
    throw wrong(`timeout is ${TIMEOUT_MS_MIN}ms to ${TIMEOUT_MS_MAX / 1000}s, not '${option}'`)
  }
  return { rest: text.slice(0, at), timeoutMs }
}

function checkRoot(root: string): void {
  const isFine = /^(\/[^/\s\p{Cc}]+)+$/u.test(root) && !/\/\.\.?(\/|$)/.test(root)
  if (!isFine) throw wrong(`'${root}' cannot be the name of a cluster`)
  if (root === '/zookeeper' || root.startsWith('/zookeeper/')) {
    throw wrong('/zookeeper belongs to ZooKeeper itself')
  }
}

function parseServer(text: string): ZkServer {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:\s[\]=]+))(?::(\d+))?$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined) throw wrong(`'${text}' is no HOST[:PORT]`)
  const number = port === undefined ? ZOOKEEPER_PORT : Number(port)
  if (number < 1 || number > 65535) throw wrong(`'${text}' has no port from 1 to 65535`)
  return { host, port: number }
}
