import { beforeAll, describe, expect, it } from 'vitest';
import type { Database } from '../../broker/database.ts';
import { AgentService } from '../../proto/gen/brokkr/v1/agents_pb.js';
import { testDatabase } from '../postgres.ts';
import { recordPostgres } from '../postgres-wire.ts';
import { startBroker } from '../processes.ts';

let db: Database;
beforeAll(async () => {
  db = await (await testDatabase()).open();
});

describe('the schema', () => {
  // C-031
  it('has the relations between stacks, deployment objects, agents, targets and events', async () => {
    const rows = await db.query<{ relation: string }>(
      `select c.conrelid::regclass || ' -> ' || c.confrelid::regclass as relation from pg_constraint c
       where c.contype = 'f' and c.connamespace = current_schema()::regnamespace`,
    );
    const relations = rows.map(({ relation }) => relation);
    expect(relations).toEqual(
      expect.arrayContaining([
        'deployment_object -> stack',
        'agent_target -> agent',
        'agent_target -> stack',
        'agent_event -> agent',
        'agent_event -> deployment_object',
      ]),
    );
  });

  // C-008, C-029
  it('has one agent of a name in a cluster and one target for a pair', async () => {
    const rows = await db.query<{ definition: string }>(
      `select indexdef as definition from pg_indexes where schemaname = current_schema() and tablename in ('agent', 'agent_target')`,
    );
    const unique = rows.map(({ definition }) => definition).filter((definition) => definition.startsWith('CREATE UNIQUE'));
    expect(unique.some((definition) => /\(name, cluster_name\) WHERE \(deleted_at IS NULL\)/.test(definition))).toBe(true);
    expect(unique.some((definition) => /agent_target.*\(agent_id, stack_id\)/.test(definition))).toBe(true);
  });
});

describe('a query of a tenant', () => {
  // C-067: read off the connection to the database
  it('carries its owner as a parameter, in the lists of a generator and in the target state of an agent', async () => {
    await using wire = await recordPostgres((await testDatabase()).url);
    const broker = await startBroker({ databaseUrl: wire.url });
    const generator = await broker.api<{ generator: { id: string }; pak: string }>('POST', '/api/v1/generators', {
      name: 'tenant',
    });
    const agent = await broker.api<{ agent: { id: string }; initial_pak: string }>('POST', '/api/v1/agents', {
      name: 'tenant',
      cluster_name: 'c',
    });
    for (const [path, pak, id, column] of [
      ['/api/v1/stacks', generator.body.pak, generator.body.generator.id, 'generator_id'],
      [`/api/v1/agents/${agent.body.agent.id}/target-state`, agent.body.initial_pak, agent.body.agent.id, 'agent_id'],
    ] as const) {
      expect((await broker.api('GET', path, undefined, { authorization: pak })).status).toBe(200); // the key is known now
      wire.clear();
      expect((await broker.api('GET', path, undefined, { authorization: pak })).status).toBe(200);
      expect(wire.sent()).toMatch(new RegExp(`where[^\\0]*${column} = (any\\()?\\$\\d`, 's'));
      expect(wire.sent()).toContain(id);
    }
    await broker.stop();
  });
});

describe('the trail of events', () => {
  // C-053
  it('has no method that changes or removes one', () => {
    expect(
      AgentService.methods
        .map(({ name }) => name)
        .filter((name) => name.includes('Event'))
        .sort(),
    ).toEqual(['CreateAgentEvent', 'GetAgentEvent', 'ListAgentEvents', 'ListEventsOfAgent']);
  });
});
