// reports: lint/suspicious/noImportCycles
// @ts-nocheck: never compiled, only linted
import { a } from './cycle-a.ts';

/** The other half. */
export const b = (): number => a();
