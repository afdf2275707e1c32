/** The noun `nbd`. */
import type { Noun } from './command.js'
import { attach } from './nbd-attach.js'
import { detach, refresh } from './nbd-detach.js'
import { devices } from './nbd-devices.js'
import { list } from './nbd-list.js'

export const nbd: Noun = { name: 'nbd', subcommands: [list, attach, detach, refresh, devices] }
