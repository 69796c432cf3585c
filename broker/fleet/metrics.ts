import type { Metrics } from '#lib/metrics.ts';
import { HEALTHS, PHASES } from '../sync/ingest.ts';
import type { BacklogStage, FleetCounts } from './store.ts';

interface Figure {
  readonly name: string;
  readonly help: string;
  readonly read: (counts: FleetCounts) => number;
}

const FIGURES: readonly Figure[] = [
  {
    name: 'active_agents',
    help: 'agents with a session, over all replicas',
    read: ({ agents }) => agents.connected ?? 0,
  },
  {
    name: 'agent_heartbeat_age_max_seconds',
    help: 'time since the last sign of life of the active agent that has been silent the longest',
    read: (counts) => counts.oldest_heartbeat,
  },
  { name: 'stacks', help: 'stacks', read: (counts) => counts.stacks },
  { name: 'stack_objects', help: 'objects in the newest generation of all stacks', read: (counts) => counts.stack_objects },
  {
    name: 'webhook_deliveries_due',
    help: 'webhook deliveries that are due and not being sent',
    read: (counts) => counts.webhooks_due,
  },
  {
    name: 'webhook_deliveries_overdue_seconds',
    help: 'for how long the first of these has been due',
    read: (counts) => counts.webhooks_overdue,
  },
];

interface Breakdown {
  readonly name: string;
  readonly label: string;
  readonly values: readonly string[];
  readonly help: string;
  readonly read: (counts: FleetCounts, value: string) => number | undefined;
}

const STAGES: readonly BacklogStage[] = ['undelivered', 'unapplied'];

const BREAKDOWNS: readonly Breakdown[] = [
  {
    name: 'agents',
    label: 'state',
    values: ['connected', 'silent', 'never', 'inactive'],
    help: 'agents: connected, silent (active, without a session now), never (active, none so far), inactive',
    read: ({ agents }, state) => agents[state],
  },
  {
    name: 'delivery_phase',
    label: 'phase',
    values: [...new Set(Object.values(PHASES))],
    help: 'stacks on agents, by phase',
    read: ({ phases }, phase) => phases[phase],
  },
  {
    name: 'delivery_health',
    label: 'health',
    values: [...new Set(Object.values(HEALTHS))],
    help: 'stacks on agents, by health',
    read: ({ healths }, health) => healths[health],
  },
  {
    name: 'delivery_backlog',
    label: 'stage',
    values: STAGES,
    help: 'stacks on active agents that are not as they should be: undelivered, or delivered and unapplied; held back ones do not count',
    read: ({ backlog }, stage) => backlog[stage as BacklogStage].pairs,
  },
  {
    name: 'delivery_backlog_oldest_seconds',
    label: 'stage',
    values: STAGES,
    help: 'for how long the oldest of these has been waiting; 0 without any',
    read: ({ backlog }, stage) => backlog[stage as BacklogStage].oldest,
  },
];

/**
 * Declares what is true of the fleet as a whole: the same on every replica, so take the maximum. Without an answer of the database there
 * are no values but `database_up` 0.
 */
export function declareFleetMetrics(metrics: Metrics, fleet: () => Promise<FleetCounts | undefined>): void {
  metrics.gauge({
    name: 'database_up',
    help: '1 when the database has answered the query behind the gauges of the fleet in time',
    collect: async (gauge) => gauge.set((await fleet()) ? 1 : 0),
  });
  for (const { name, help, read } of FIGURES) {
    metrics.gauge({
      name,
      help,
      async collect(gauge) {
        const counts = await fleet();
        if (counts) gauge.set(read(counts));
        else gauge.remove();
      },
    });
  }
  for (const { name, label, values, help, read } of BREAKDOWNS) {
    metrics.gauge({
      name,
      help,
      labels: [label],
      async collect(gauge) {
        const counts = await fleet();
        gauge.reset();
        if (counts) for (const value of values) gauge.set({ [label]: value }, read(counts, value) ?? 0);
      },
    });
  }
}
