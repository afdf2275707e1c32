/** Every limit of the product, by name, with the reason for its value. */
export const LIMITS = {
  /**
   * Payload of one sheepdog request, or the answer it asks for: a whole inode (12587576) fits. Objects may be larger
   * (up to 2 GiB) and are read and written in parts; more in one request is INVALID_PARMS.
   */
  sheepdogPayloadBytesMax: 16 * 1024 * 1024,
  /** Payload of a cluster message (protocol spec, section 15). */
  clusterMessageBytesMax: 128 * 1024,
  /** Names and tags are 256-byte fields with a NUL (protocol spec, section 15). */
  nameBytesMax: 255,
  /** Replicas of one object (protocol spec, section 15). */
  copiesMax: 31,
  blockSizeShiftMin: 20,
  blockSizeShiftMax: 31,
  /** Slots of a plain VDI: 2^20 objects. */
  objectsPerVdiMax: 1 << 20,
  /** Of any volume: what a number counts exactly. The format would allow hypervolumes of twice that. */
  volumeBytesMax: Number.MAX_SAFE_INTEGER,
  /** Requests of one connection the server works on at once; then it stops reading. */
  requestsInFlightMax: 256,
  /** Bytes of requests and unsent replies of one connection; then it stops reading. */
  connectionBytesMax: 64 * 1024 * 1024,
  /** Connections of the sheepdog protocol at once, other nodes included. */
  clientsMax: 4096,
  /** Larger objects travel between nodes in pieces of this size. */
  pieceBytesMax: 4 * 1024 * 1024,
  /** Descriptors a store keeps open. */
  openObjectsMax: 4096,
  nodesMax: 6144,
} as const
