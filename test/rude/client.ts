/** Sends rude requests, each on a connection of its own, and looks whether the sheep answers as it should. */
import type { SheepClient } from '../../src/peer/client.js'
import type { RudeRequest } from './requests.js'

/** What was answered; 'nothing' when the connection lasts without an answer, 'close' when it does not. */
export type Heard = number | 'nothing' | 'close'

export interface RudeOptions {
  readonly connect: () => Promise<SheepClient>
  /** Resolves when a sheep that has anything to say would have said it. */
  readonly patience: () => Promise<void>
}

export async function hear(request: RudeRequest, options: RudeOptions): Promise<Heard> {
  const client = await options.connect()
  const answered = client.call(request.head, request.body).then(
    ({ result }): Heard => result,
    (): Heard => 'close',
  )
  const silent = options.patience().then((): Heard => 'nothing')
  const heard = await (request.expected === 'nothing' ? Promise.race([answered, silent]) : answered)
  client.close()
  return heard
}

/** Undefined when it is as it should be, else a sentence. */
export async function complaint(
  request: RudeRequest,
  options: RudeOptions,
): Promise<string | undefined> {
  const heard = await hear(request, options)
  const { name, expected } = request
  const isRight =
    typeof expected === 'string' ? heard === expected : expected.includes(heard as never)
  return isRight ? undefined : `${name}: ${String(heard)} instead of ${String(expected)}`
}
