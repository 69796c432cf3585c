import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openEmbeddedPostgres } from '../../broker/postgres/supervisor.ts';
import { systemClock } from '../../lib/clock.ts';
import { createLog } from '../../lib/log.ts';
import { connectAgent, hello } from '../agent-client.ts';
import { debianPrograms } from '../debian-postgresql.ts';
import { startBroker, temporaryDirectory } from '../processes.ts';

describe('an installed PostgreSQL (the oldest release supported is 15)', () => {
  // N-023
  it('carries the main path: migrations, a publication, a session', async () => {
    const dir = await temporaryDirectory();
    await chmod(dir, 0o755);
    const log = createLog('test', { level: 'fatal' });
    await using server = await openEmbeddedPostgres(
      { dataDir: join(dir, 'pg'), log, clock: systemClock, binDir: await debianPrograms() },
      AbortSignal.timeout(60_000),
    );
    const broker = await startBroker({ databaseUrl: server.url });
    const agent = await broker.api<{ initial_pak: string }>('POST', '/api/v1/agents', {
      name: 'a',
      cluster_name: 'c',
      labels: ['x'],
    });
    const yaml = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n';
    expect(
      (await broker.api('PUT', '/api/v1/stacks/by-name/s/apply?label=x', yaml, { 'content-type': 'application/yaml' })).status,
    ).toBe(200);
    using client = connectAgent(broker.url, agent.body.initial_pak);
    client.send(hello());
    const upsert = await client.take('upsert');
    expect(Buffer.from(upsert.blobs[0]?.data ?? []).toString()).toBe(yaml);
    expect(await broker.stop()).toBe(0);
  });
});
