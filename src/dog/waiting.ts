/** A sheep that waits for other nodes of its cluster knows no VDIs yet, so that it tells of none means nothing. */
import { Code, codeText } from '../base/codes.js'
import type { Sheep } from './client.js'
import { readHistory } from './cluster-info.js'
import { Exit, Failure } from './failure.js'

/** For who has heard of no VDI. Throws a Failure that says so when the cluster does not run yet. */
export async function mustKnowVdis(sheep: Sheep): Promise<void> {
  const { result } = await readHistory(sheep)
  if (result !== Code.WAIT_FOR_JOIN) return
  const why = `${codeText(result)}: VDIs are not known before`
  throw new Failure(Exit.system, [`${why} ('dog cluster info' names the missing nodes)`])
}
