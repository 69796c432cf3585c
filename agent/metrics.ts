import type { Metrics } from '#lib/metrics.ts';
import type { Tier } from './transport/wire.ts';

/** The metrics of an agent; names and labels are a contract (docs/reference/metrics.md). */
export type AgentMetrics = ReturnType<typeof createAgentMetrics>;

/** What gauges read when they are scraped. */
export interface AgentGauges {
  readonly tier: () => Tier | undefined;
  readonly pendingEvents: () => number;
  readonly failingStacks: () => number;
  readonly stacks: () => number;
  /** In seconds; undefined before the first look. */
  readonly kubernetesLatency: () => number | undefined;
}

/** Declares them all. `gauges` is called at every scrape. */
export function createAgentMetrics(metrics: Metrics, gauges: () => AgentGauges | undefined) {
  const tiers: readonly Tier[] = ['stream', 'poll'];
  metrics.gauge({
    name: 'agent_session_up',
    help: '1 for the tier of the session that is up',
    labels: ['tier'],
    collect: (gauge) => {
      for (const tier of tiers) gauge.set({ tier }, gauges()?.tier() === tier ? 1 : 0);
    },
  });
  metrics.gauge({
    name: 'agent_pending_events',
    help: 'Events the broker has not acknowledged',
    collect: (gauge) => gauge.set(gauges()?.pendingEvents() ?? 0),
  });
  metrics.gauge({
    name: 'agent_stacks',
    help: 'Stacks this agent holds',
    collect: (gauge) => gauge.set(gauges()?.stacks() ?? 0),
  });
  metrics.gauge({
    name: 'agent_failing_stacks',
    help: 'Stacks that fail',
    collect: (gauge) => gauge.set(gauges()?.failingStacks() ?? 0),
  });
  metrics.gauge({
    name: 'agent_kubernetes_latency_seconds',
    help: 'How long the API server took to say that it is ready',
    collect: (gauge) => gauge.set(gauges()?.kubernetesLatency() ?? 0),
  });
  return {
    sessions: metrics.counter({ name: 'agent_sessions_total', help: 'Sessions opened', labels: ['tier'] }),
    sessionEnds: metrics.counter({
      name: 'agent_session_ends_total',
      help: 'Ends of sessions and dials',
      labels: ['tier', 'kind'],
    }),
    sessionSeconds: metrics.histogram({
      name: 'agent_session_duration_seconds',
      help: 'How long sessions lived',
      labels: ['tier'],
      buckets: [1, 10, 30, 60, 300, 900, 1800, 3600],
    }),
    tierChanges: metrics.counter({ name: 'agent_tier_changes_total', help: 'Changes of the tier', labels: ['to'] }),
    heartbeats: metrics.counter({ name: 'agent_heartbeat_sent_total', help: 'Heartbeats sent' }),
    polls: metrics.counter({ name: 'agent_poll_requests_total', help: 'Polls', labels: ['status'] }),
    pollSeconds: metrics.histogram({ name: 'agent_poll_duration_seconds', help: 'Duration of polls, held time included' }),
    lastPoll: metrics.gauge({
      name: 'agent_last_successful_poll_timestamp',
      help: 'When a poll last succeeded, in seconds since 1970',
    }),
    kubernetesRequests: metrics.counter({
      name: 'agent_kubernetes_operations_total',
      help: 'Requests to the API server',
      labels: ['operation', 'code'],
    }),
    kubernetesSeconds: metrics.histogram({
      name: 'agent_kubernetes_operation_duration_seconds',
      help: 'Duration of requests to the API server',
      labels: ['operation'],
    }),
  };
}
