/**
 * Refuses dependencies whose licence is not on the list, by the lock file: `node hack/licences.ts`, a gate. What is shipped may only
 * carry permissive licences; tools that are not may also carry those that bind only changes to themselves.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ROOT } from './process.ts';

/** SPDX identifiers (https://spdx.org/licenses). */
const SHIPPED = [
  ...['0BSD', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'BlueOak-1.0.0', 'CC0-1.0', 'ISC', 'MIT', 'PSF-2.0', 'PostgreSQL'],
  ...['Python-2.0', 'Unlicense', 'Zlib'],
];
const TOOLS = [...SHIPPED, 'MPL-2.0'];

interface LockFile {
  readonly packages: Readonly<Record<string, { readonly license?: string; readonly dev?: boolean }>>;
}

/** An SPDX expression without nesting: one side of an OR is enough, of an AND every part counts. */
function isAllowed(expression: string, list: readonly string[]): boolean {
  const [whole = ''] = /^[^()]*$/.exec(expression.replace(/^\((.*)\)$/, '$1')) ?? [];
  return whole.split(' OR ').some((side) => side.split(' AND ').every((id) => list.includes(id)));
}

const lock = JSON.parse(await readFile(join(ROOT, 'package-lock.json'), 'utf8')) as LockFile;
for (const [path, { license = 'none', dev = false }] of Object.entries(lock.packages)) {
  if (path === '' || isAllowed(license, dev ? TOOLS : SHIPPED)) continue;
  console.log(`${path}: licence ${license} is not on the list of hack/licences.ts`);
  process.exitCode = 1;
}
