/** What travels through the cluster driver: request header, response header, data (cluster spec, 3.4). */
import { Frame, HEADER_BYTES, MalformedFrame } from './frame.js'

export interface ClusterMessage {
  readonly request: Frame
  /** Filled in by the work phase of two-phase operations, else zero. */
  readonly response: Frame
}

export function encodeClusterMessage(
  requestHead: Buffer,
  responseHead: Buffer,
  data: Buffer,
): Buffer {
  return Buffer.concat([requestHead, responseHead, data])
}

/** The data is both the request's payload and the response's. Throws MalformedFrame when cut short. */
export function decodeClusterMessage(bytes: Buffer): ClusterMessage {
  if (bytes.length < 2 * HEADER_BYTES) throw new MalformedFrame('cluster message cut short')
  const data = bytes.subarray(2 * HEADER_BYTES)
  return {
    request: new Frame(bytes.subarray(0, HEADER_BYTES), data),
    response: new Frame(bytes.subarray(HEADER_BYTES, 2 * HEADER_BYTES), data),
  }
}
