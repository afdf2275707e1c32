/** `dog vdi setattr` and `getattr`: small named values that go with a volume. */

import { Code } from '../base/codes.js'
import { LIMITS } from '../base/limits.js'
import { ATTRIBUTE_BYTES, attributeOid } from '../model/oid.js'
import {
  ATTRIBUTE_VALUE_BYTES_MAX,
  AttributeFlag,
  decodeAttribute,
  encodeAttribute,
} from '../wire/sheepdog/attribute.js'
import { MalformedFrame } from '../wire/sheepdog/frame.js'
import { reasonOf } from './client.js'
import type { Context, Subcommand } from './command.js'
import { errnoText } from './errno.js'
import { Exit, Failure, failed, misused } from './failure.js'
import { hasCode } from './image.js'
import { vdiOption as option } from './options.js'

export const setattr: Subcommand = {
  name: 'setattr',
  summary: 'set a VDI attribute',
  options: [
    option.deleteKey,
    option.exclusive,
    option.address,
    option.port,
    option.help,
    option.time,
  ],
  synopsis: '<vdiname> <key> [value]',
  needsOperand: true,
  run: runSet,
}

export const getattr: Subcommand = {
  name: 'getattr',
  summary: 'get a VDI attribute',
  options: [option.address, option.port, option.help, option.time],
  synopsis: '<vdiname> <key>',
  needsOperand: true,
  run: runGet,
}

async function runSet(context: Context): Promise<number> {
  const { operands, options, sheep } = context
  const { name, key } = asked(operands)
  const value = options.delete ? Buffer.alloc(0) : await attributeValue(context)
  const exclusive = options.exclusive ? AttributeFlag.EXCLUSIVE : 0
  const flags = options.delete ? AttributeFlag.DELETE : AttributeFlag.CREATE | exclusive
  try {
    await sheep.attribute(encodeAttribute({ name, tag: '', snapId: 0, key, value }), flags)
  } catch (error) {
    throw attributeFailure('set', key, error)
  }
  return Exit.ok
}

async function runGet({ operands, sheep, out }: Context): Promise<number> {
  const { name, key } = asked(operands)
  const value = Buffer.alloc(0)
  const record = encodeAttribute({ name, tag: '', snapId: 0, key, value })
  let bytes: Buffer
  try {
    const { vid, attributeId } = await sheep.attribute(record, 0)
    bytes = await sheep.readObject(attributeOid(vid, attributeId), 0, ATTRIBUTE_BYTES)
  } catch (error) {
    throw attributeFailure('get', key, error)
  }
  try {
    await out.bytes(decodeAttribute(bytes).value)
  } catch (error) {
    if (error instanceof MalformedFrame) throw failed(`Attribute '${key}' cannot be read`)
    throw error
  }
  return Exit.ok
}

function asked(operands: readonly string[]): { readonly name: string; readonly key: string } {
  const [name = '', key = ''] = operands
  if (key === '') throw misused('Please specify the attribute key')
  if (Buffer.byteLength(key) > LIMITS.nameBytesMax) {
    throw failed(`The attribute key is longer than ${LIMITS.nameBytesMax} bytes`)
  }
  return { name, key }
}

/** As in 1.0 a value ends at its first NUL; unlike there one that does not fit is refused, not cut. */
async function attributeValue({ operands, io }: Context): Promise<Buffer> {
  const [, , operand] = operands
  const value = operand === undefined ? await readAll(io.stdin) : Buffer.from(operand)
  const end = value.indexOf(0)
  const text = end < 0 ? value : value.subarray(0, end)
  if (text.length <= ATTRIBUTE_VALUE_BYTES_MAX) return text
  throw failed(`The value is longer than ${ATTRIBUTE_VALUE_BYTES_MAX} bytes`)
}

/** No more than says that it is too much. */
async function readAll(input: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  try {
    for await (const chunk of input) {
      chunks.push(chunk)
      length += chunk.length
      if (length > ATTRIBUTE_VALUE_BYTES_MAX) break
    }
  } catch (error) {
    throw new Failure(Exit.system, [`Failed to read from stdin: ${errnoText(error)}`])
  }
  return Buffer.concat(chunks)
}

function attributeFailure(verb: 'set' | 'get', key: string, error: unknown): Failure {
  if (hasCode(error, Code.NO_VDI)) return new Failure(Exit.missing, ['VDI not found'])
  if (hasCode(error, Code.NO_OBJ)) {
    return new Failure(Exit.missing, [`Attribute '${key}' not found`])
  }
  if (hasCode(error, Code.VDI_EXIST)) {
    return new Failure(Exit.exists, [`The attribute '${key}' already exists`])
  }
  return failed(`Failed to ${verb} attribute '${key}': ${reasonOf(error)}`)
}
