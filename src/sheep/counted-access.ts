/** Objects as a block door uses them, counted: `dog node stat` shows NBD clients beside those of the protocol. */
import { Code, type Done } from '../base/codes.js'
import type { ObjectAccess } from '../model/access.js'
import type { Stats } from './stats.js'

export function countedAccess(objects: ObjectAccess, stats: Stats): ObjectAccess {
  /** `answerBytes`: what a success gives the client. */
  const counting = (payloadBytes: number, answerBytes: number, done: Done): Done => {
    stats.beginAt('gateway', payloadBytes)
    return (code) => {
      stats.endAt('gateway', code === Code.SUCCESS ? answerBytes : 0)
      done(code)
    }
  }
  return {
    ref: (oid) => objects.ref(oid),
    isSure: () => objects.isSure(),
    whenSure: (go, fail) => objects.whenSure(go, fail),
    begin: (vid) => objects.begin(vid),
    end: (vid) => objects.end(vid),
    remove: (oid, done) => {
      stats.add('gatewayRemoves')
      objects.remove(oid, counting(0, 0, done))
    },
    setSlots: (update, done) => objects.setSlots(update, done),
    read: (ref, offset, into, done) => {
      stats.add('gatewayReads')
      objects.read(ref, offset, into, counting(0, into.length, done))
    },
    write: (ref, offset, data, durable, done) => {
      stats.add('gatewayWrites')
      objects.write(ref, offset, data, durable, counting(data.length, 0, done))
    },
    create: (ref, offset, data, source, done) => {
      stats.add('gatewayWrites')
      objects.create(ref, offset, data, source, counting(data.length, 0, done))
    },
    flush: (vid, done) => {
      stats.add('gatewayFlushes')
      objects.flush(vid, counting(0, 0, done))
    },
  }
}
