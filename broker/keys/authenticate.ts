import type { Clock } from '#lib/clock.ts';
import { BrokkrError, errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { hashPak, pakOf } from '#lib/pak.ts';
import type { Task } from '#lib/run.ts';
import type { Principal } from '../api/principal.ts';
import { type Database, timestampMs } from '../database.ts';
import { findKeyByHash, type ResolvedKey, touchKeys } from './store.ts';

/** Settings of the authenticator. */
export interface AuthenticatorOptions {
  /** How long a resolved key is believed without asking the database; 0 asks every time. */
  readonly cacheTtlMs: number;
}

interface Cached {
  readonly principal: Principal;
  readonly until: number;
}

const MAX_CACHED = 10_000;
/** Last uses are written this often, all in one statement. */
const TOUCH_INTERVAL_MS = 15_000;
const MAX_TOUCHED = 20_000;

/**
 * Resolves keys to principals with a bounded cache. Only hashes are kept; lookups go by hash, so that time taken tells
 * nothing about a key. The change feed calls `forget` when a key or an identity changes, on every replica.
 */
export class Authenticator implements Task {
  readonly name = 'key use';
  readonly #db: Database;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #ttlMs: number;
  readonly #cache = new Map<string, Cached>();
  readonly #used = new Set<string>();
  /** Raised by `forget`: what was looked up before it is not kept. */
  #age = 0;

  constructor(
    { db, clock, log }: { readonly db: Database; readonly clock: Clock; readonly log: Logger },
    { cacheTtlMs }: AuthenticatorOptions,
  ) {
    this.#db = db;
    this.#clock = clock;
    this.#log = log;
    this.#ttlMs = cacheTtlMs;
  }

  /** The caller behind an `Authorization` header. Throws `unauthorized`; `database_unavailable` when it cannot be told. */
  async authenticate(authorization: string | undefined): Promise<Principal> {
    const pak = pakOf(authorization);
    if (pak === undefined) throw new BrokkrError('unauthorized', 'no key: send it in the authorization header');
    const hash = hashPak(pak);
    if (hash === undefined) throw new BrokkrError('unauthorized', 'the authorization header holds no well-formed key');
    const cached = this.#cache.get(hash);
    const principal = cached && cached.until > this.#clock.now() ? cached.principal : await this.#resolve(hash);
    if (this.#used.size < MAX_TOUCHED) this.#used.add(principal.keyId);
    return principal;
  }

  /** Forgets everything resolved so far. */
  forget(): void {
    this.#age++;
    this.#cache.clear();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#clock.sleep(TOUCH_INTERVAL_MS, signal).catch(() => undefined);
      const ids = [...this.#used];
      this.#used.clear();
      if (ids.length === 0) continue;
      await touchKeys(this.#db, ids).catch((error: unknown) => this.#log.debug({ error: errorText(error) }, 'key use not noted'));
    }
  }

  async #resolve(hash: string): Promise<Principal> {
    const age = this.#age;
    const row = await findKeyByHash(this.#db, hash);
    const principal = row && toPrincipal(row);
    if (!row || !principal) throw new BrokkrError('unauthorized', 'the key is not known, revoked or expired');
    if (this.#ttlMs > 0 && age === this.#age) {
      if (this.#cache.size >= MAX_CACHED) this.#cache.clear();
      const expiry = row.expires_at === null ? Number.POSITIVE_INFINITY : timestampMs(row.expires_at);
      this.#cache.set(hash, { principal, until: Math.min(this.#clock.now() + this.#ttlMs, expiry) });
    }
    return principal;
  }
}

function toPrincipal(row: ResolvedKey): Principal | undefined {
  const base = { keyId: row.id, readOnly: row.read_only };
  if (row.role === 'admin') return { kind: 'admin', ...base };
  if (row.role === 'agent' && row.agent_id !== null) return { kind: 'agent', ...base, agentId: row.agent_id };
  if (row.role === 'generator' && row.generator_id !== null) return { kind: 'generator', ...base, generatorId: row.generator_id };
  return undefined;
}
