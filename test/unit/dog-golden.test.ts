// Transcripts of dog 1.0 played against a sheep of memory: same words, same bytes, same exit
// status.
import test from 'ava'
import { asTranscript, readGolden, runDog } from './support/dog-rig.js'
import { FakeSheep } from './support/fake-sheep.js'

process.env.TZ = 'UTC'

const SPACE_BYTES = 79903084544
const FORMATTED_AT = 1795253998

function nodes(count: number): FakeSheep['nodes'] {
  return Array.from({ length: count }, (_, i) => ({
    ...{ host: '127.0.0.1', port: 7020 + i, vnodes: 128, zone: i },
    spaceBytes: i === 5 ? SPACE_BYTES + 4096 : SPACE_BYTES,
  }))
}

const COUNTS: Readonly<Record<string, number>> = { three: 3, five: 5, six: 6 }

async function stage(sheep: FakeSheep, direction: string): Promise<void> {
  const [word = '', value = ''] = direction.split(' ')
  if (word === 'clock') sheep.nowMs = Number(value) * 1000
  if (COUNTS[word] === undefined) return
  sheep.nodes = nodes(COUNTS[word])
  sheep.nowMs = FORMATTED_AT * 1000
  await runDog(sheep, ['cluster', 'format', '-f', '-c', '3'])
}

function environment(directions: readonly string[]): Record<string, string> {
  const settings = directions.filter((one) => one.startsWith('env '))
  return Object.fromEntries(settings.map((one) => one.slice(4).split('=')))
}

for (const name of [
  'create',
  'snapshot',
  'delete',
  'resize',
  'sizes',
  'epochs',
  'format',
  'options',
  'help',
]) {
  test(`${name}: every command of the transcript answers as 1.0 did`, async (t) => {
    const sheep = new FakeSheep(nodes(6))
    const steps = readGolden(name)
    t.true(steps.length > 4)
    for (const { argv, directions, stdin, line, answer } of steps) {
      for (const direction of directions) await stage(sheep, direction)
      const how = { env: environment(directions), ...(stdin === undefined ? {} : { stdin }) }
      const result = await runDog(sheep, argv, { ...how, waits: [] })
      t.is(
        asTranscript(result),
        answer.join('\n').trimEnd(),
        `${name}.txt:${line} dog ${argv.join(' ')}`,
      )
    }
  })
}
