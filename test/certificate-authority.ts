import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { makeCertificate } from './certificates.ts';
import { temporaryDirectory } from './processes.ts';

const DAY_MS = 86_400_000;

/** A certificate as the test wants it. */
export interface Wanted {
  /** Names and addresses. */
  readonly hosts: readonly string[];
  /** Days from today; valid from yesterday to the day after tomorrow when absent. */
  readonly fromDays?: number;
  readonly toDays?: number;
}

/** A certificate authority of a test's own. */
export interface Authority {
  /** Its certificate, PEM. */
  readonly certFile: string;
  /** Writes `tls.crt` and `tls.key` into the directory, the way a changed Secret appears: whole files, one after the other. */
  issue(directory: string, wanted: Wanted): Promise<void>;
}

/** Makes an authority whose files go away at the end of the test file; `name` is its subject. */
export async function createAuthority(name: string): Promise<Authority> {
  const home = await temporaryDirectory();
  await makeCertificate(home, name, 'authority.test');
  let issued = 0;
  return {
    certFile: join(home, `${name}.crt`),
    async issue(directory, { hosts, fromDays = -1, toDays = 2 }) {
      const certificate = `${name} server ${issued++}`;
      await mkdir(directory, { recursive: true });
      await makeCertificate(home, certificate, hosts, { ca: name, valid: [at(fromDays), at(toDays)] });
      await rename(join(home, `${certificate}.key`), join(directory, 'tls.key'));
      await rename(join(home, `${certificate}.crt`), join(directory, 'tls.crt'));
    },
  };
}

/** As openssl wants times: YYYYMMDDHHMMSSZ. */
function at(days: number): string {
  return `${new Date(Date.now() + days * DAY_MS).toISOString().replaceAll(/[-:T]/g, '').slice(0, 14)}Z`;
}
