/** An object one keeps using, with where it is under the view it was last used in. */
import type { ObjectRef } from '../model/access.js'
import type { SdNode } from '../model/node.js'
import { type Oid, oidKind, oidVid, type Vid } from '../model/oid.js'
import type { CodedPlace, CodedRef } from './coded-objects.js'
import type { View } from './state.js'

export class PlacedRef implements ObjectRef, CodedRef {
  readonly oid: Oid
  readonly vid: Vid
  coded: CodedPlace | undefined
  readonly isData: boolean
  /** Objects of this kind are coded when their volume is. */
  readonly mayBeCoded: boolean
  view: View | undefined
  local = false
  remotes: readonly SdNode[] = []
  readonly isWanted: (() => boolean) | undefined

  constructor(oid: Oid, isWanted?: () => boolean) {
    this.oid = oid
    this.isWanted = isWanted
    this.vid = oidVid(oid)
    const kind = oidKind(oid)
    this.isData = kind === 'data'
    this.mayBeCoded = this.isData || kind === 'vmstate' || kind === 'attribute'
  }
}
