/** The export rules of a running daemon: those of the file as it was read last. */
import type { Log } from '../base/log.js'
import type { RuleBook } from '../doors/nbd/access.js'
import type { ExportRules } from '../doors/nbd/export-rules.js'
import type { UsedConfig } from './config-option.js'

export interface ExportBook extends RuleBook {
  /** Reads the file again; when that is not possible the rules stay, and the log says why. */
  reload(): void
}

export function exportBook(
  rules: ExportRules,
  config: UsedConfig | undefined,
  log: Log,
): ExportBook {
  let current = rules
  return {
    get current() {
      return current
    },
    reload: () => {
      if (config === undefined) return
      const { path } = config
      try {
        const { rules: next, changed } = config.reread()
        current = next
        log.info('config.reloaded', { path, exportRules: next.rules?.length ?? 0 })
        if (changed.length > 0) {
          log.warn('config.needs-restart', { path, keys: changed.join(',') })
        }
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        log.error('config.reload.failed', { path, reason, kept: 'the rules before' })
      }
    },
  }
}
