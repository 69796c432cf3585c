import { expect, it } from 'vitest';
import { systemClock } from '#lib/clock.ts';
import { createLog } from '#lib/log.ts';
import { mintKey } from '#lib/pak.ts';
import { testDatabase } from '../../test/postgres.ts';
import { Authenticator } from './authenticate.ts';
import { insertKey, revokeKey } from './store.ts';

// C-071
it('does not keep a key that was looked up before it was revoked', async () => {
  const db = await (await testDatabase()).open();
  const { pak, ...minted } = mintKey();
  const { id } = await insertKey(db, { role: 'admin', name: 'test', ...minted });
  const slow = {
    ...db,
    query: (async (sql: string, parameters?: readonly unknown[]) => {
      const rows = await db.query(sql, parameters);
      await revokeKey(db, id); // after the look-up read the row, before its answer is used
      authenticator.forget();
      return rows;
    }) as typeof db.query,
  };
  const authenticator = new Authenticator(
    { db: slow, clock: systemClock, log: createLog('test', { level: 'fatal' }) },
    { cacheTtlMs: 60_000 },
  );
  await authenticator.authenticate(pak);
  await expect(authenticator.authenticate(pak)).rejects.toMatchObject({ code: 'unauthorized' });
});
