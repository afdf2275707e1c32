/** Leaving the cluster in order, as far as the driver lets one. */
import { describe, type Log } from '../base/log.js'
import type { ClusterDriver } from '../cluster/driver.js'
import type { Clock } from '../world/world.js'

/** Coordination that is out of order itself may never answer. The others then take this node for dead, a little later. */
const LEAVE_PATIENCE_MS = 4_000

/** Resolves when the node is out, or does not get out. */
export async function leaveInTime(driver: ClusterDriver, clock: Clock, log: Log): Promise<void> {
  await new Promise<void>((resolve) => {
    const cancel = clock.after(LEAVE_PATIENCE_MS, () => {
      log.warn('leave.unanswered', { afterMs: LEAVE_PATIENCE_MS })
      resolve()
    })
    driver
      .leave()
      .catch((error: unknown) => {
        // Whoever was thrown out has nothing to leave; the disks are looked after all the same.
        log.warn('leave.failed', { reason: describe(error) })
      })
      .finally(() => {
        cancel()
        resolve()
      })
  })
}
