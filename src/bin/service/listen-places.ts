/** Where doors listen: at the sockets that were passed in, and at what else the command line names. */
import type { Address, PassedSocket } from '../../world/world.js'

const EVERYWHERE = ['::', '0.0.0.0']

/** Whether a socket that was passed in is where `asked` would be bound. */
export function covers(passed: Address, asked: Address): boolean {
  if ('path' in passed || 'path' in asked) {
    return 'path' in passed && 'path' in asked && passed.path === asked.path
  }
  if (passed.port !== asked.port) return false
  return passed.host === asked.host || EVERYWHERE.includes(passed.host)
}

/** Of the addresses of the sheepdog protocol, those of the port other nodes know: passed in, or `own`. */
export function portPlaces(passed: readonly number[], own: Address): (Address | PassedSocket)[] {
  return passed.length > 0 ? passed.map((fd) => ({ fd })) : [own]
}

/** Throws an Error for people when nobody would find the node at the sockets that were passed in. */
export function checkPort(
  passed: readonly number[],
  listening: readonly Address[],
  announced: number,
): void {
  if (passed.length === 0) return
  const ports = listening.flatMap((at) => ('port' in at ? [at.port] : []))
  if (ports.includes(announced)) return
  throw new Error(
    `no socket passed in for 'sheepdog' listens at port ${announced}, which this node announces: ` +
      `give ListenStream= of the socket unit and -p the same port`,
  )
}
