import type { Socket } from 'node:net';
import type pg from 'pg';

/** What we need to see of a client beyond its declared surface (pg 8.23). */
interface Inside {
  readonly _activeQuery?: unknown;
  readonly connection: { readonly stream: Socket };
}

/**
 * Keeps broken connections from staying in the pool. Two cases the layers above leave open: a transaction whose
 * connection is lost never gives it back, since Kysely (0.29) releases only after a rollback that succeeded; and a
 * statement sent into a dead network waits for ever. So a connection that ends while in use is released here, and one
 * that is silent for `silentAfterMs` in the middle of a statement is destroyed.
 */
export function guardPool(pool: pg.Pool, silentAfterMs: number): void {
  const held = new WeakSet<pg.PoolClient>();
  pool.on('acquire', (client) => held.add(client));
  pool.on('release', (_error, client) => held.delete(client as pg.PoolClient));
  pool.on('connect', (client) => {
    const inside = client as unknown as Inside;
    inside.connection.stream.setTimeout(silentAfterMs, () => {
      if (inside._activeQuery) inside.connection.stream.destroy(new Error(`no answer from the database for ${silentAfterMs} ms`));
    });
    client.once('end', () => {
      if (!held.has(client)) return;
      const release = client.release;
      client.release = () => undefined; // its holder may still do so, in vain
      release.call(client, true);
    });
  });
}
