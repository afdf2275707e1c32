/** The export rules of a running daemon: those of the file as it was read last. */
import type { Log } from '../base/log.js'
import { NO_TARGET_RULES, type TargetRules } from '../doors/iscsi/target-rules.js'
import type { TargetBook } from '../doors/iscsi/targets.js'
import type { RuleBook } from '../doors/nbd/access.js'
import type { ExportRules } from '../doors/nbd/export-rules.js'
import type { UsedConfig } from './config-option.js'

export interface ExportBook extends RuleBook {
  /** Those of iSCSI. */
  readonly targets: TargetBook
  /** Reads the file again; when that is not possible the rules stay, and the log says why. */
  reload(): void
}

export function exportBook(
  rules: ExportRules,
  config: UsedConfig | undefined,
  log: Log,
  targetRules: TargetRules = NO_TARGET_RULES,
): ExportBook {
  let current = rules
  let currentTargets = targetRules
  return {
    get current() {
      return current
    },
    targets: {
      get current() {
        return currentTargets
      },
    },
    reload: () => {
      if (config === undefined) return
      const { path } = config
      try {
        const { rules: next, targets, changed } = config.reread()
        current = next
        currentTargets = targets
        log.info('config.reloaded', {
          ...{ path, exportRules: next.rules?.length ?? 0 },
          targetRules: targets.rules?.length ?? 0,
        })
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
