/** The directory a sheep has its meta files and its log in. */
import { accessSync, constants, realpathSync } from 'node:fs'
import { makeDirectories } from '../world/node/directories.js'
import { type NodeLog, openLog } from '../world/node/log.js'
import type { SheepOptions } from './sheep-options.js'

/** As sheepdog 1.0 makes its directories, before the umask. */
const STORE_MODE = 0o770

/** Its full name, once it is there and can be used. Throws an Error for people. */
export function makeStoreDirectory(path: string): string {
  try {
    makeDirectories(path, STORE_MODE)
    accessSync(path, constants.W_OK | constants.X_OK)
    return realpathSync(path)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(`the store directory ${path} cannot be used: ${reason}`, { cause: error })
  }
}

/** The log as the options want it; `directory` where they name none. */
export function openSheepLog({ log }: SheepOptions, directory: string): NodeLog {
  const { level, format, destination, dir } = log
  return openLog({ level, format, destination, dir: dir ?? directory })
}
