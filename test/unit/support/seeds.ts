/** Random tests: SEED=n runs that seed alone, SEEDS=n as many. A failing run names its seed. */
export function seeds(count: number): number[] {
  const { SEED, SEEDS } = process.env
  if (SEED !== undefined) return [Number(SEED)]
  return Array.from({ length: Number(SEEDS ?? count) }, (_, i) => i + 1)
}

/** Runs `run` with each seed; what it throws says which one it was. */
export async function withSeeds(
  count: number,
  run: (seed: number) => Promise<void>,
): Promise<void> {
  for (const seed of seeds(count)) {
    try {
      await run(seed)
    } catch (error) {
      throw new Error(`SEED=${seed}: ${error instanceof Error ? error.stack : String(error)}`)
    }
  }
}
