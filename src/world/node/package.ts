/** This package as it is installed: where its parts are, and its version. The same from single modules and from bundles. */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const MANIFEST = 'package.json'
/** Absolute path of the directory package.json is in. */
export const PACKAGE_ROOT = packageRoot()

function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(directory, MANIFEST))) {
    const above = dirname(directory)
    if (above === directory) throw new Error('package.json of sheepdog is missing: install it anew')
    directory = above
  }
  return directory
}

export function packageVersion(): string {
  const about: { version: string } = createRequire(import.meta.url)(join(PACKAGE_ROOT, MANIFEST))
  return about.version
}
