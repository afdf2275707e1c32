/**
 * The file `config` of a meta directory (objects spec, section 13.1):
 *
 *   ctime u64 | flags u16 | copies u8 | store name 16 | shutdown u8 | policy u8 | shift u8 |
 *   version u16 @30 | space u64                                        40 bytes, little endian
 */
import { readCString, writeCString } from '../base/bytes.js'
import type { Files } from '../world/world.js'
import { errnoOf } from './errno.js'

export const CONFIG_BYTES = 40
/** Format of sheepdog 1.0; the only one read and written. */
export const CONFIG_VERSION = 6

const STORE_NAME_BYTES = 16
const VERSION_AT = 30

const RELEASES: Readonly<Record<number, string>> = {
  1: '0.5.1',
  2: '0.6 or 0.7',
  3: '0.8.0',
  4: '0.8',
  5: '0.9',
}

export interface StoreConfig {
  /** When the cluster was formatted: seconds << 32 | nanoseconds, as on the wire; 0 when it was not. */
  readonly createdAt: bigint
  /** Cluster flags (protocol spec, section 5.3). */
  readonly flags: number
  readonly copies: number
  readonly copyPolicy: number
  readonly blockSizeShift: number
  /** 'plain', 'tree', or '' before the first format. */
  readonly storeName: string
  /** The cluster was shut down in order and has not served since. */
  readonly cleanShutdown: boolean
  /** What this node announces; 0 when not yet determined, and for gateways. */
  readonly spaceBytes: number
}

export function encodeConfig(config: StoreConfig): Buffer {
  const bytes = Buffer.alloc(CONFIG_BYTES)
  bytes.writeBigUInt64LE(config.createdAt, 0)
  bytes.writeUInt16LE(config.flags, 8)
  bytes.writeUInt8(config.copies, 10)
  writeCString(bytes, 11, STORE_NAME_BYTES, config.storeName)
  bytes.writeUInt8(config.cleanShutdown ? 1 : 0, 27)
  bytes.writeUInt8(config.copyPolicy, 28)
  bytes.writeUInt8(config.blockSizeShift, 29)
  bytes.writeUInt16LE(CONFIG_VERSION, VERSION_AT)
  bytes.writeBigUInt64LE(BigInt(config.spaceBytes), 32)
  return bytes
}

/** Throws an Error that says what is wrong with `bytes` and what to do; `path` is for its text. */
export function decodeConfig(bytes: Buffer, path: string): StoreConfig {
  if (bytes.length >= VERSION_AT + 2) refuseOtherVersions(bytes.readUInt16LE(VERSION_AT), path)
  if (bytes.length !== CONFIG_BYTES) {
    throw new Error(
      `${path} is damaged: it has ${bytes.length} bytes instead of ${CONFIG_BYTES}; ` +
        'restore it, or start with an empty directory and let recovery fill it',
    )
  }
  const space = bytes.readBigUInt64LE(32)
  if (space > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new Error(`${path} is damaged: a space of ${space} bytes is not possible`)
  }
  return {
    createdAt: bytes.readBigUInt64LE(0),
    flags: bytes.readUInt16LE(8),
    copies: bytes.readUInt8(10),
    storeName: readCString(bytes, 11, STORE_NAME_BYTES),
    cleanShutdown: bytes.readUInt8(27) === 1,
    copyPolicy: bytes.readUInt8(28),
    blockSizeShift: bytes.readUInt8(29),
    spaceBytes: Number(space),
  }
}

function refuseOtherVersions(version: number, path: string): void {
  if (version === CONFIG_VERSION) return
  const wanted = `this sheep reads version ${CONFIG_VERSION} (sheepdog 1.0)`
  if (version > CONFIG_VERSION) {
    throw new Error(
      `${path} has format version ${version}, ${wanted}: run the newer release that wrote it`,
    )
  }
  const release = RELEASES[version] ?? 'before 0.5.1'
  throw new Error(
    `${path} has format version ${version} (sheepdog ${release}), ${wanted}: convert the directory ` +
      "with the 'upgrade' commands of sheepdog 1.0's dog, or start with an empty one",
  )
}

function configPath(metaDirectory: string): string {
  return `${metaDirectory}/config`
}

/** Undefined when the directory has never been used. Throws as `decodeConfig`, and errno errors. */
export function readConfig(files: Files, metaDirectory: string): StoreConfig | undefined {
  const path = configPath(metaDirectory)
  let bytes: Buffer
  try {
    bytes = files.readFile(path)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
  return decodeConfig(bytes, path)
}

/** Atomic and durable. Rejects with an errno error. */
export function writeConfig(
  files: Files,
  metaDirectory: string,
  config: StoreConfig,
): Promise<void> {
  return files.writeFileAtomic(configPath(metaDirectory), encodeConfig(config))
}
