import { readFile, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';

/** The operating system account that the embedded server runs under. */
export interface Account {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** Tried in this order when the broker runs as root, which PostgreSQL refuses to run as. */
const UNPRIVILEGED_NAMES = ['postgres', 'nobody'];
/** What `nobody` is on most systems, for images without an account file. */
const NOBODY: Account = { name: 'nobody', uid: 65_534, gid: 65_534 };

/**
 * The account to run the embedded server as: undefined for "the one we are", an unprivileged one when we are root.
 */
export async function serverAccount(): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const passwd = await readFile('/etc/passwd', 'utf8').catch(() => '');
  const accounts = new Map(passwd.split('\n').map((line) => [line.split(':')[0], line.split(':')] as const));
  for (const name of UNPRIVILEGED_NAMES) {
    const fields = accounts.get(name);
    const uid = Number(fields?.[2]);
    const gid = Number(fields?.[3]);
    if (fields && uid > 0 && gid > 0) return { name, uid, gid };
  }
  return NOBODY;
}

/**
 * The first directory on the way down to `path` (itself included when it exists) that `account` may not enter, or
 * undefined. Judged by mode bits, which is what matters for a plain account without capabilities.
 */
export async function closedDirectory(path: string, account: Account): Promise<string | undefined> {
  const chain: string[] = [];
  for (let at = resolve(path); ; at = dirname(at)) {
    chain.unshift(at);
    if (at === dirname(at)) break;
  }
  for (const directory of chain) {
    const entry = await stat(directory).catch(() => undefined);
    if (!entry) return undefined;
    const bit = entry.uid === account.uid ? 0o100 : entry.gid === account.gid ? 0o010 : 0o001;
    if (entry.isDirectory() && (entry.mode & bit) === 0) return directory;
  }
  return undefined;
}
