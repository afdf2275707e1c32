/** Directories with their parents. Node's own recursive mkdir spins for ever below /proc (Node 20). */
import fs from 'node:fs'
import { dirname } from 'node:path'

/** Accepts a directory that exists. Throws an errno error; ENOTDIR when something else has the name. */
export function makeDirectories(path: string, mode: number): void {
  try {
    fs.mkdirSync(path, { mode })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') {
      if (!fs.statSync(path).isDirectory()) throw notADirectory(path)
      return
    }
    const parent = dirname(path)
    if (code !== 'ENOENT' || parent === path || fs.existsSync(parent)) throw error
    makeDirectories(parent, mode)
    fs.mkdirSync(path, { mode })
  }
}

function notADirectory(path: string): Error {
  const error = new Error(`ENOTDIR: not a directory, mkdir '${path}'`)
  return Object.assign(error, { code: 'ENOTDIR', syscall: 'mkdir', path })
}
