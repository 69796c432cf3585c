/**
 * Removes from package-lock.json the optional packages (binaries for other platforms) that it names but does not hold, because
 * the registry it was made with has no such package. Newer npm versions look for them at `npm ci` and refuse the lock file.
 * Run after every `npm install` that changes the lock file. With `--check` it changes nothing and fails when there are any.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ROOT } from './process.ts';

interface LockFile {
  readonly packages: Record<string, { readonly optionalDependencies?: Record<string, string> }>;
}

/** Node's lookup: beside the package, then in every node_modules above it. */
function isHeld(lock: LockFile, from: string, name: string): boolean {
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('/node_modules/')))) {
    if (`${folder}${folder ? '/' : ''}node_modules/${name}` in lock.packages) return true;
    if (folder === '') return false;
  }
}

const file = join(ROOT, 'package-lock.json');
const lock = JSON.parse(await readFile(file, 'utf8')) as LockFile;
const removed: string[] = [];
for (const [path, { optionalDependencies }] of Object.entries(lock.packages)) {
  if (!path || !optionalDependencies) continue; // the root's own list is package.json's
  for (const name of Object.keys(optionalDependencies)) {
    if (isHeld(lock, path, name)) continue;
    delete optionalDependencies[name];
    removed.push(`${path} → ${name}`);
  }
}
if (process.argv.includes('--check')) {
  for (const line of removed) console.log(`not in the lock file: ${line}`);
  if (removed.length > 0) console.log('run node hack/trim-lockfile.ts');
  process.exitCode = removed.length > 0 ? 1 : 0;
} else {
  if (removed.length > 0) await writeFile(file, `${JSON.stringify(lock, undefined, 2)}\n`);
  console.log(`removed ${removed.length} optional packages of other platforms`);
}
