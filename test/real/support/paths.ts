/** Where things are, seen from build/test/real/support. */
import { fileURLToPath } from 'node:url'

/** The project's top directory, with a slash at its end. */
export const PROJECT = fileURLToPath(new URL('../../../../', import.meta.url))
export const SHEEP = `${PROJECT}build/bin/sheep.cjs`
export const DOG = `${PROJECT}build/bin/dog.js`
export const SHEEPFS = `${PROJECT}build/bin/sheepfs.js`
/** Downloads and prepared things that outlive a run; not tracked. */
export const CACHE = `${PROJECT}.cache/`
