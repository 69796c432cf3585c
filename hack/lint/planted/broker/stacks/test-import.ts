// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { startCluster } from '../../test/kube.ts';

/** Production code that needs the tests. */
export const start = startCluster;
