// reports: lint/suspicious/noImportCycles
// @ts-nocheck: never compiled, only linted
import { b } from './cycle-b.ts';

/** One half of a cycle. */
export const a = (): number => b();
