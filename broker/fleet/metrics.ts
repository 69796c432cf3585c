import type { Metrics } from '#lib/metrics.ts';
import { HEALTHS, PHASES } from '../sync/ingest.ts';
import type { FleetView } from './fleet.ts';
import type { FleetCounts } from './store.ts';

const STATES = ['connected', 'silent', 'never', 'inactive'];

/**
 * Declares what is true of the fleet as a whole: the same on every replica, so take the maximum. Without an answer of the database there
 * are no values but `database_up` 0.
 */
export function declareFleetMetrics(metrics: Metrics, view: () => Promise<FleetView>): void {
  const one = (name: string, help: string, read: (counts: FleetCounts) => number) =>
    metrics.gauge({
      name,
      help,
      async collect(gauge) {
        const found = await view();
        if ('counts' in found) gauge.set(read(found.counts));
        else gauge.remove();
      },
    });
  const each = (name: string, label: string, values: readonly string[], help: string, read: Read) =>
    metrics.gauge({
      name,
      help,
      labels: [label],
      async collect(gauge) {
        const found = await view();
        gauge.reset();
        if ('counts' in found) for (const value of values) gauge.set({ [label]: value }, read(found.counts, value) ?? 0);
      },
    });
  metrics.gauge({
    name: 'database_up',
    help: '1 when the database has answered the query behind the gauges of the fleet in time',
    collect: async (gauge) => gauge.set('counts' in (await view()) ? 1 : 0),
  });
  one('active_agents', 'agents with a session, over all replicas', ({ agents }) => agents.connected ?? 0);
  each(
    'agents',
    'state',
    STATES,
    'agents: connected, silent (active, without a session now), never (active, none so far), inactive',
    ({ agents }, state) => agents[state],
  );
  one(
    'agent_heartbeat_age_max_seconds',
    'time since the last sign of life of the active agent that has been silent the longest',
    (counts) => counts.oldest_heartbeat,
  );
  one('stacks', 'stacks', (counts) => counts.stacks);
  one('stack_objects', 'objects in the newest generation of all stacks', (counts) => counts.stack_objects);
  each('delivery_phase', 'phase', Object.values(PHASES), 'stacks on agents, by phase', ({ phases }, phase) => phases[phase]);
  each(
    'delivery_health',
    'health',
    Object.values(HEALTHS),
    'stacks on agents, by health',
    ({ healths }, health) => healths[health],
  );
  const stages = ['undelivered', 'unapplied'] as const;
  each(
    'delivery_backlog',
    'stage',
    stages,
    'stacks on active agents that are not as they should be: undelivered, or delivered and unapplied; held back ones do not count',
    ({ backlog }, stage) => backlog[stage as (typeof stages)[number]].pairs,
  );
  each(
    'delivery_backlog_oldest_seconds',
    'stage',
    stages,
    'for how long the oldest of these has been waiting; 0 without any',
    ({ backlog }, stage) => backlog[stage as (typeof stages)[number]].oldest,
  );
  one('webhook_deliveries_due', 'webhook deliveries that are due and not being sent', (counts) => counts.webhooks_due);
  one('webhook_deliveries_overdue_seconds', 'for how long the first of these has been due', (counts) => counts.webhooks_overdue);
}

type Read = (counts: FleetCounts, value: string) => number | undefined;
