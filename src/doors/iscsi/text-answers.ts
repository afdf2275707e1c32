/** Text requests of the full feature phase: SendTargets, whose answer may take several PDUs (RFC 7143, section 4.4). */
import { noBytes } from '../../base/bytes.js'
import { FINAL, ISCSI_LIMITS, NO_TAG, RejectReason, TextFlag } from '../../wire/iscsi/constants.js'
import * as pdu from '../../wire/iscsi/pdu.js'
import { decodeText, encodeText, MalformedText } from '../../wire/iscsi/text.js'
import type { Output } from './output.js'
import type { Parameters } from './parameters.js'

export interface TextOptions {
  readonly agreed: Parameters
  readonly output: Output
  targets(wanted: string): Promise<[string, string][] | undefined>
  late(): void
}

export class TextAnswers {
  readonly #options: TextOptions
  /** Of a request that goes on. */
  #asked = noBytes()
  /** Of an answer that goes on, under this tag. */
  #rest = noBytes()
  #tag = 0
  #isBusy = false

  constructor(options: TextOptions) {
    this.#options = options
  }

  request(header: Buffer, data: Buffer): void {
    const { output } = this.#options
    const tag = pdu.tagOf(header)
    const transferTag = pdu.secondTag(header)
    const isMore = (pdu.flagsOf(header) & TextFlag.CONTINUE) !== 0
    const isMuch = this.#asked.length + data.length > ISCSI_LIMITS.textBytesMax
    if (this.#isBusy || isMuch || (isMore && (pdu.flagsOf(header) & FINAL) !== 0)) {
      this.#asked = noBytes()
      output.reject(header, RejectReason.PROTOCOL_ERROR)
      return
    }
    if (transferTag !== NO_TAG && transferTag === this.#tag && this.#rest.length > 0) {
      this.#send(tag)
      return
    }
    this.#asked = Buffer.concat([this.#asked, data])
    if (isMore) {
      // An empty answer asks for the rest.
      this.#tag++
      output.sendText(tag, noBytes(), this.#tag)
      return
    }
    const asked = this.#asked
    this.#asked = noBytes()
    try {
      void this.#answer(tag, decodeText(asked))
    } catch (error) {
      if (!(error instanceof MalformedText)) throw error
      output.reject(header, RejectReason.PROTOCOL_ERROR)
    }
  }

  async #answer(tag: number, pairs: ReadonlyMap<string, string>): Promise<void> {
    this.#isBusy = true
    const answers: [string, string][] = []
    for (const [key, value] of pairs) {
      const found = key === 'SendTargets' ? await this.#options.targets(value) : undefined
      if (found !== undefined) answers.push(...found)
      else answers.push([key, key === 'SendTargets' ? 'Reject' : 'NotUnderstood'])
    }
    this.#rest = encodeText(answers)
    this.#isBusy = false
    this.#send(tag)
    this.#options.late()
  }

  #send(tag: number): void {
    const { agreed, output } = this.#options
    const part = this.#rest.subarray(0, agreed.sendBytesMax)
    this.#rest = this.#rest.subarray(part.length)
    if (this.#rest.length > 0) this.#tag++
    output.sendText(tag, part, this.#rest.length > 0 ? this.#tag : NO_TAG)
  }
}
