import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { backoffMs } from '#lib/backoff.ts';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { explainFailure, failureCode } from '#lib/reach-failure.ts';
import { readJson, writeJson } from './data-dir.ts';
import type { Kube } from './kube/kube.ts';

const RETRY = { baseMs: 2_000, capMs: 30_000 };

/** Who this installation is; on disk, and found out again when the disk is lost. */
export interface Identity {
  /** Random per installation. */
  readonly installId: string;
  /** Which cluster it is in; empty until the API server was asked once. */
  readonly clusterUid: string;
  /** Who the broker says the key belongs to; empty until it was asked. */
  readonly agentId: string;
  /** SHA-256 of that key: another key may belong to another agent. */
  readonly keyDigest: string;
}

/** The identity in the data directory, or a new one. */
export async function loadIdentity(dir: string, newId: () => string): Promise<Identity> {
  const found = await readJson(join(dir, 'identity.json'));
  const text = (key: string) => (typeof found?.[key] === 'string' ? found[key] : '');
  const identity = {
    installId: text('installId'),
    clusterUid: text('clusterUid'),
    agentId: text('agentId'),
    keyDigest: text('keyDigest'),
  };
  if (identity.installId) return identity;
  return saveIdentity(dir, { ...identity, installId: newId() });
}

/** Keeps the identity. */
export async function saveIdentity(dir: string, identity: Identity): Promise<Identity> {
  await writeJson(join(dir, 'identity.json'), identity);
  return identity;
}

/** What stands for a key on disk. */
export function keyDigest(pak: string): string {
  return createHash('sha256').update(pak, 'utf8').digest('hex');
}

/** What retries need. */
export interface RetryDeps {
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  /** Told why it is not done yet. */
  readonly waiting: (problem: string) => void;
}

/** Tries until it works; each failure is told. Rejects only when `signal` aborts. */
export async function untilDone<T>(
  what: string,
  work: () => Promise<T>,
  { clock, log, random, waiting }: RetryDeps,
  signal: AbortSignal,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      signal.throwIfAborted();
      const problem = error instanceof BrokkrError ? error.message : explainFailure(error); // ours says what to do
      waiting(`${what}: ${problem}`);
      const waitMs = backoffMs(attempt, RETRY, random);
      log.warn({ step: what, code: failureCode(error), error: problem, waitMs }, 'start is held up and goes on by itself');
      await clock.sleep(waitMs, signal);
    }
  }
}

/** The UID of the cluster. Throws with the way out when nobody may say. */
export async function clusterUidOf(kube: Kube, signal: AbortSignal): Promise<string> {
  const uid = await kube.clusterUid(signal);
  if (uid) return uid;
  throw new Error('the cluster cannot be told: let the agent get the namespace kube-system or its own');
}
