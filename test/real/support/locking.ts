/** Clusters formatted with locking (`cluster format -l`). */
import { type ClusterPlan, planCluster, type TestCluster } from './cluster.js'
import type { Owner } from './owner.js'

export async function startLockingCluster(t: Owner, plan: ClusterPlan = {}): Promise<TestCluster> {
  const cluster = await planCluster(t, plan)
  await cluster.startAll()
  await cluster.dog('cluster format', '-c', `${plan.copies ?? 3}`, '-l')
  return cluster
}
