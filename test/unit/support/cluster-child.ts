/**
 * A member process of cluster-local-processes.test.ts: joins, then sends and blocks as fast as it gets
 * its own back, and writes every event to a file at once (the file survives SIGKILL).
 *
 *   node cluster-child.js DIRECTORY PORT LIFE HISTORY
 *
 * Tells its parent `in` once it is a member. `stop` from the parent ends the hammering, `end` makes it
 * send the last message, `quit` ends the process (its history is complete by then).
 */
import { appendFileSync } from 'node:fs'
import { silentLog } from '../../../src/base/log.js'
import { localDriver } from '../../../src/cluster/local/driver.js'
import { nodeWorld } from '../../../src/world/node/world.js'
import { Recorder } from './recorder.js'

const [directory = '', port = '', life = '', history = ''] = process.argv.slice(2)
/** Messages on their way; each that comes back sends the next. */
const WINDOW = 4

const driver = localDriver({ world: nodeWorld(), directory, log: silentLog })
const member = new Recorder(driver, Number(port))
let hammering = true
let sent = 0

/** One line a write: what was seen is on record whenever the process is killed. */
member.lines.push = (line) => {
  appendFileSync(history, `${line}\n`)
  return 0
}
member.own.push = (line) => {
  if (line.startsWith('lost')) appendFileSync(`${history}.lost`, `${line}\n`)
  return 0
}
member.joinRequest = (_joiner, _members, request) => request
member.onNotified = (text) => {
  if (text.startsWith(`${life}.`) && hammering) say()
}
member.onBlocked = () => {
  setTimeout(() => member.unblock(`${life}.${sent++}`), sent % 3)
}

function say(): void {
  // Every tenth is a block, whose unblock carries the number.
  if (sent % 10 === 9) driver.block()
  else member.notify(`${life}.${sent++} ${'.'.repeat((sent * 37) % 3000)}`)
}

process.on('message', (order) => {
  if (order === 'stop') hammering = false
  if (order === 'end') member.notify('end')
  if (order === 'quit') process.exit(0)
})
process.on('disconnect', () => process.exit(1))

await member.join(`life ${life}`)
process.send?.('in')
for (let i = 0; i < WINDOW; i++) say()
