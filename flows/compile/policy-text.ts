import { dump } from 'js-yaml';
import type { PolicyObject } from './compile.ts';

/** Policies as one YAML text of several documents, in their order. The same policies give the same text. */
export function policyText(objects: readonly PolicyObject[]): string {
  return objects.map((object) => dump(object, { lineWidth: -1, noRefs: true })).join('---\n');
}
