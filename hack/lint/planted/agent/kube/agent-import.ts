// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { loadIdentity } from '../identity.ts';

/** The client of the API server knows nothing of the agent. */
export const load = loadIdentity;
