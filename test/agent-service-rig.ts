import { AgentEntity } from '../broker/agents/entities.ts';
import { agentService } from '../broker/agents/rpc.ts';
import { admin, openRig } from '../broker/agents/test/rpc.ts';
import type { Acceptance } from '../broker/targeting/store.ts';
import { AgentService } from '../proto/gen/brokkr/v1/agents_pb.js';
import { testDatabase } from './postgres.ts';

/** AgentService on a database of its own, with two tenants. Call in `beforeAll`. */
export async function openAgentRig(acceptance: Acceptance) {
  const db = await (await testDatabase()).open({}, { entities: [AgentEntity] });
  const rig = openRig(db, (router, pipeline) =>
    router.service(AgentService, agentService(pipeline, { acceptance, heartbeatIntervalMs: 20_000 })),
  );
  const rows = await db.query<{ id: string }>(`insert into generator (name) values ('tenant'), ('stranger') returning id`);
  const [tenant = '', stranger = ''] = rows.map(({ id }) => id);
  return { rig, agents: rig.as(AgentService, admin), tenant, stranger };
}
