// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { apply } from '../../agent/apply.ts';

/** Reaches into another process. */
export const step = apply;
