/** The noun `nbd`. */
import type { Noun } from './command.js'
import { list } from './nbd-list.js'

export const nbd: Noun = { name: 'nbd', subcommands: [list] }
