/**
 * Where the keys of a TOML text are, for messages: the parser tells lines of syntax errors only. Follows headers and plain
 * keys, which is what configuration files are made of; a key it does not find has no line.
 */

/** From `port`, `nbd.listen` or `nbd.export[1].name` (the second table of that array) to its line, from 1. */
export function keyLines(text: string): ReadonlyMap<string, number> {
  const lines = new Map<string, number>()
  const counts = new Map<string, number>()
  let table = ''
  for (const [index, line] of text.split('\n').entries()) {
    const [, isArray, header] = /^\s*\[(\[)?\s*([^\]]+?)\s*\]/.exec(line) ?? []
    if (header !== undefined) {
      const name = pathOf(header)
      table = name
      if (isArray !== undefined) {
        const count = counts.get(name) ?? 0
        counts.set(name, count + 1)
        table = `${name}[${count}]`
      }
      lines.set(table, index + 1)
      continue
    }
    const [, key] = /^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[\w-]+)*)\s*=/.exec(line) ?? []
    if (key === undefined) continue
    const path = table === '' ? pathOf(key) : `${table}.${pathOf(key)}`
    if (!lines.has(path)) lines.set(path, index + 1)
  }
  return lines
}

function pathOf(key: string): string {
  return key
    .split('.')
    .map((part) => part.trim().replace(/^(["'])(.*)\1$/, '$2'))
    .join('.')
}
