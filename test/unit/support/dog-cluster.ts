/** Runs `dog` from outside of a small cluster of real nodes. */
import { dogMain } from '../../../src/dog/main.js'
import type { Images } from '../../../src/world/images.js'
import { NO_IMAGES, RANDOM } from './dog-rig.js'
import type { SmallCluster } from './small-cluster.js'

export interface ClusterDogHow {
  readonly images?: Images
  readonly stdin?: AsyncIterable<Buffer>
  /** Gets what SIGINT would call. */
  readonly onInterrupt?: (stop: () => void) => void
  /** Of the sheep it asks first. */
  readonly port?: number
}

export interface ClusterDogResult {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  readonly bytes: Buffer
}

async function* nothing(): AsyncGenerator<Buffer> {}

export async function dogOn(
  cluster: SmallCluster,
  argv: readonly string[],
  how: ClusterDogHow = {},
): Promise<ClusterDogResult> {
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []]
  const { port = 7000 } = how
  const host = cluster.machines.find(({ self }) => self.port === port)!.self.host
  const env = { SHEEPDOG_DOG_PORT: `${port}`, SHEEPDOG_DOG_ADDR: host }
  const io = {
    stdout: {
      isTTY: false,
      write: (bytes: Uint8Array) => Promise.resolve(void stdout.push(Buffer.from(bytes))),
    },
    stderr: { write: (bytes: Uint8Array) => void stderr.push(Buffer.from(bytes)) },
    stdin: how.stdin ?? nothing(),
    columns: 80,
    version: 'test',
    resolve: (name: string) => Promise.resolve(name),
    images: how.images ?? NO_IMAGES,
    onInterrupt: (stop: () => void) => {
      how.onInterrupt?.(stop)
      return () => undefined
    },
    record: () => Promise.resolve(),
  }
  const world = { clock: cluster.clock, network: cluster.outside(), random: RANDOM }
  const status = await dogMain(argv, env, io, world)
  const bytes = Buffer.concat(stdout)
  return { status, bytes, stdout: bytes.toString(), stderr: Buffer.concat(stderr).toString() }
}
