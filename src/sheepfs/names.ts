/** Names of VDIs and tags as names of files: a slash, a percent sign, and what consists of dots are written as %XX. */

export function toFileName(name: string): string {
  if (/^\.{1,2}$/.test(name)) return name.replaceAll('.', '%2E')
  return name.replace(/[%/]/g, (char) => (char === '/' ? '%2F' : '%25'))
}

/** Undefined for what `toFileName` never makes: such a file does not exist. */
export function fromFileName(file: string): string | undefined {
  const name = file.replace(/%(2F|25|2E)/g, (_, hex: string) => {
    return String.fromCharCode(Number.parseInt(hex, 16))
  })
  return toFileName(name) === file ? name : undefined
}
