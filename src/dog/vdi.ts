/** The noun `vdi`. */
import { alterVdi } from './alter-copy.js'
import type { Noun } from './command.js'
import { exportVdi } from './transfer/vdi-export.js'
import { importVdi } from './transfer/vdi-import.js'
import { getattr, setattr } from './vdi-attr.js'
import { backup } from './vdi-backup.js'
import { cache } from './vdi-cache.js'
import { check } from './vdi-check.js'
import { create } from './vdi-create.js'
import { remove, rollback } from './vdi-delete.js'
import { inspect } from './vdi-inspect.js'
import { read, write } from './vdi-io.js'
import { list } from './vdi-list.js'
import { lock } from './vdi-lock.js'
import { object } from './vdi-object.js'
import { resize } from './vdi-resize.js'
import { restore } from './vdi-restore.js'
import { clone, snapshot } from './vdi-snapshot.js'
import { track } from './vdi-track.js'
import { graph, tree } from './vdi-tree.js'

export const vdi: Noun = {
  name: 'vdi',
  subcommands: [
    ...[create, snapshot, clone, remove, rollback, list, tree, graph, resize, read, write],
    ...[alterVdi, cache, lock, inspect, setattr, getattr],
    ...[exportVdi, importVdi, object, track, backup, restore, check],
  ],
}
