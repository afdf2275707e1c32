/**
 * Free loopback ports below the range the kernel gives to outgoing connections: a node that is killed
 * and started again must find its port free, also while clients keep reconnecting. Processes that look for ports at
 * the same time get a part of the range each: SHEEPDOG_TEST_PORTS=K/N, the Kth of N, counted from 0.
 */
import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

const FIRST = 20_000
const LIMIT = 32_000
const given = new Set<number>()
const [part = 0, parts = 1] = (process.env.SHEEPDOG_TEST_PORTS ?? '0/1').split('/').map(Number)
const SPAN = Math.floor((LIMIT - FIRST) / parts)
const OWN_FIRST = FIRST + part * SPAN

export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = randomInt(OWN_FIRST, OWN_FIRST + SPAN)
    if (given.has(port) || !(await canListen(port))) continue
    given.add(port)
    return port
  }
  throw new Error('no free port found on 127.0.0.1')
}

export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = []
  while (ports.length < count) ports.push(await freePort())
  return ports
}

export function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host: '127.0.0.1' }, () => server.close(() => resolve(true)))
  })
}
