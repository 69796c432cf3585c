import { defineEntity, p, raw } from '@mikro-orm/postgresql';
import type { Acceptance } from '../targeting/store.ts';

/** The part of an agent that people edit. Heartbeats and facts are written by statements, see `reports-store.ts`. */
export const AgentEntity = defineEntity({
  name: 'Agent',
  tableName: 'agent',
  properties: {
    id: p.uuid().primary().defaultRaw('gen_random_uuid()'),
    name: p.string(),
    clusterName: p.string(),
    status: p.string().$type<'ACTIVE' | 'INACTIVE'>(),
    acceptance: p.string().$type<Acceptance>().nullable(),
    version: p.integer().version(),
    updatedAt: p
      .datetime()
      .defaultRaw('now()')
      .onUpdate(() => raw('now()')),
    deletedAt: p.datetime().nullable(),
  },
});
