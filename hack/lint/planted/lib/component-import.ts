// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { apply } from '../agent/apply.ts';

/** lib knows no process. */
export const step = apply;
