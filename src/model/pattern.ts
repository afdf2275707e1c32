/** Patterns of names as administrators write them in rules. */

/**
 * `*` and `?` as in a shell, every other character itself. Goes back to the last `*` only, so that no pattern takes
 * more than the product of the lengths.
 */
export function isLike(pattern: string, name: string): boolean {
  let [p, n] = [0, 0]
  let [star, from] = [-1, 0]
  while (n < name.length) {
    if (p < pattern.length && pattern[p] === '*') {
      star = p++
      from = n
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === name[n])) {
      p++
      n++
    } else if (star >= 0) {
      p = star + 1
      n = ++from
    } else return false
  }
  while (pattern[p] === '*') p++
  return p === pattern.length
}
