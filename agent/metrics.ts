import type { Clock } from '#lib/clock.ts';
import type { Metrics } from '#lib/metrics.ts';
import { declareSegmentMetrics } from '#lib/segment-metrics.ts';
import type { YamlPool } from '#lib/yaml-pool.ts';
import type { Kube } from './kube/kube.ts';
import type { Reconciler } from './reconcile.ts';
import type { Tier } from './transport/wire.ts';

/** The metrics of an agent; names and labels are a contract (docs/reference/metrics.md). */
export type AgentMetrics = ReturnType<typeof createAgentMetrics>;

/** What gauges read when they are scraped. */
export interface AgentGauges {
  readonly tier: () => Tier | undefined;
  /** 0 while there is one. */
  readonly withoutSessionMs: () => number;
  readonly pendingEvents: () => number;
  readonly failingStacks: () => number;
  readonly stacks: () => number;
  /** In seconds; undefined before the first look. */
  readonly kubernetesLatency: () => number | undefined;
  readonly kube: Pick<Kube, 'transport' | 'limiter' | 'serverClock'>;
  readonly engine: Pick<Reconciler, 'census' | 'silenceMs'>;
  readonly yaml: Pick<YamlPool, 'counts' | 'queued'>;
}

/** Declares them all. `view` is called at every scrape; undefined: nothing to look at yet. */
export function createAgentMetrics(metrics: Metrics, clock: Pick<Clock, 'now'>, view: () => AgentGauges | 'standby' | undefined) {
  const gauges = () => {
    const seen = view();
    return seen === 'standby' ? undefined : seen;
  };
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
    name: 'agent_without_session_seconds',
    help: 'Time since the last session with the broker ended; 0 while there is one, infinite before the first, none while another replica leads',
    collect(gauge) {
      if (view() === 'standby') gauge.remove();
      else gauge.set((gauges()?.withoutSessionMs() ?? Number.POSITIVE_INFINITY) / 1000);
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
  declareSegmentMetrics(metrics, 'agent_');
  declareKubernetes(metrics, gauges);
  declareEngine(metrics, gauges);
  return {
    ...engineCounters(metrics),
    ...kubernetesCounters(metrics),
    ...networkMetrics(metrics, clock),
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
  };
}

/** The client of the API server as it is now. */
function declareKubernetes(metrics: Metrics, gauges: () => AgentGauges | undefined): void {
  const gauge = (name: string, help: string, read: (kube: AgentGauges['kube']) => number | undefined) => {
    const collect = (value: { set(number: number): void }) => {
      const kube = gauges()?.kube;
      value.set((kube && read(kube)) ?? 0);
    };
    metrics.gauge({ name: `agent_${name}`, help, collect });
  };
  gauge(
    'kubernetes_requests_in_flight',
    'Requests the API server has not answered, watches aside',
    ({ transport }) => transport.pending,
  );
  gauge('kubernetes_concurrency_limit', 'Calls of the engine allowed in flight now', ({ limiter }) => limiter.limit);
  gauge('kubernetes_circuit_open', '1 while the API server is down and nothing but probes is sent', ({ transport }) =>
    Number(transport.isDown),
  );
  gauge('clock_offset_seconds', 'Clock of the API server minus that of the agent, good to a second', ({ serverClock }) =>
    serverClock.offsetMs === undefined ? undefined : serverClock.offsetMs / 1000,
  );
}

/** What the engine holds and watches now. */
function declareEngine(metrics: Metrics, gauges: () => AgentGauges | undefined): void {
  metrics.gauge({
    name: 'agent_objects',
    help: 'Objects in the inventories by state; deleting ones are held up by finalizers',
    labels: ['state'],
    collect(gauge) {
      const census = gauges()?.engine.census();
      for (const [state, number] of Object.entries(census?.objects ?? {})) gauge.set({ state }, number);
      oldest.set((census?.oldestTerminatingMs ?? 0) / 1000);
      bytes.set(census?.inventoryBytes ?? 0);
      health.reset();
      for (const [name, number] of census?.health ?? []) health.set({ health: name }, number);
    },
  });
  // Written when the one above is collected: what is declared later is collected later.
  const oldest = metrics.gauge({
    name: 'agent_oldest_terminating_seconds',
    help: 'Age of the oldest deletion that finalizers hold up; 0 without any',
  });
  const bytes = metrics.gauge({ name: 'agent_inventory_bytes', help: 'Bytes of the inventories as stored in the cluster' });
  const health = metrics.gauge({ name: 'agent_stack_health', help: 'Stacks by health', labels: ['health'] });
  metrics.gauge({
    name: 'agent_watch_silence_seconds',
    help: 'Time since the watch of a kind last heard anything, bookmarks included (they come about every minute)',
    labels: ['resource'],
    collect(gauge) {
      gauge.reset();
      for (const [resource, ms] of gauges()?.engine.silenceMs() ?? []) gauge.set({ resource }, ms / 1000);
    },
  });
  metrics.counter({
    name: 'agent_yaml_tasks_total',
    help: 'Tasks the YAML threads have begun, by kind',
    labels: ['task'],
    total: () => Object.entries(gauges()?.yaml.counts ?? {}).map(([task, number]) => [{ task }, number] as const),
  });
  metrics.gauge({
    name: 'agent_yaml_queue',
    help: 'Tasks that wait for a YAML thread',
    collect: (gauge) => gauge.set(gauges()?.yaml.queued ?? 0),
  });
}

function engineCounters(metrics: Metrics) {
  return {
    applies: metrics.counter({
      name: 'agent_apply_total',
      help: 'Objects applied, or not: created, configured, unchanged, adopted, recreated, conflict, rejected, error',
      labels: ['kind', 'result'],
    }),
    applySeconds: metrics.histogram({
      name: 'agent_apply_duration_seconds',
      help: 'Duration of the apply of one object, with everything it took and the waits between tries',
    }),
    retries: metrics.counter({
      name: 'agent_retries_total',
      help: 'Calls about an object made again, by the class of the failure before',
      labels: ['class'],
    }),
    driftDetected: metrics.counter({
      name: 'agent_drift_detected_total',
      help: 'Objects found changed or deleted by others; manager is what kind of writer it was: person, controller, applier, engine, stack, scaler, unknown',
      labels: ['kind', 'manager'],
    }),
    fights: metrics.counter({
      name: 'agent_drift_fights_total',
      help: 'Fights: objects changed again after each of three corrections',
      labels: ['kind'],
    }),
    driftCorrected: metrics.counter({
      name: 'agent_drift_corrected_total',
      help: 'Objects put back after others had changed or deleted them',
      labels: ['kind'],
    }),
    removals: metrics.counter({
      name: 'agent_prune_total',
      help: 'What became of objects that should go: deleted, gone, orphaned, terminating, moved, released, kept; guard is what keeps them',
      labels: ['result', 'guard'],
    }),
    phaseSeconds: metrics.histogram({
      name: 'agent_sync_phase_duration_seconds',
      help: 'Time a stack spent in a phase of its work',
      labels: ['phase'],
      buckets: [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800],
    }),
    syncLag: metrics.histogram({
      name: 'agent_sync_lag_seconds',
      help: 'From the publication of a generation to its last object applied, by the clocks of broker and agent',
      buckets: [0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 3600],
    }),
  };
}

/** The way to broker and API server. */
function networkMetrics(metrics: Metrics, clock: Pick<Clock, 'now'>) {
  const brokerCertificateValidTo: { ms: number | undefined } = { ms: undefined };
  metrics.gauge({
    name: 'agent_broker_certificate_expiry_seconds',
    help: 'Time until the certificate of the broker, as seen from here, ceases to be valid; none without TLS or through a proxy',
    collect(gauge) {
      const { ms } = brokerCertificateValidTo;
      if (ms === undefined) gauge.remove();
      else gauge.set((ms - clock.now()) / 1000);
    },
  });
  return {
    /** Milliseconds since 1970, as last seen. */
    brokerCertificateValidTo,
    dnsSeconds: metrics.histogram({
      name: 'agent_dns_lookup_duration_seconds',
      help: 'How long the name of the broker (or of the proxy before it) takes to resolve, looked up each minute, failures included',
    }),
    connectionFailures: metrics.counter({
      name: 'agent_connection_failures_total',
      help: 'Connections that failed to be made or broke; to is broker, api_server or dns, kind is nxdomain, dns, refused, unreachable, timeout, reset, tls, certificate, protocol, unknown',
      labels: ['to', 'kind'],
    }),
  };
}

function kubernetesCounters(metrics: Metrics) {
  return {
    kubernetesRequests: metrics.counter({
      name: 'agent_kubernetes_operations_total',
      help: 'Requests to the API server; code is the HTTP status, or error when there was no answer',
      labels: ['operation', 'code'],
    }),
    kubernetesSeconds: metrics.histogram({
      name: 'agent_kubernetes_operation_duration_seconds',
      help: 'Duration of requests to the API server',
      labels: ['operation'],
    }),
    circuitOpened: metrics.counter({
      name: 'agent_kubernetes_circuit_opened_total',
      help: 'Times the API server was found to be down',
    }),
    watchRestarts: metrics.counter({
      name: 'agent_watch_restarts_total',
      help: 'Ends of watches: ended in order, expired version, silent, refused, connection lost',
      labels: ['resource', 'reason'],
    }),
    watchLists: metrics.counter({
      name: 'agent_watch_lists_total',
      help: 'Whole lists made for watches: the first one, and one each time the versions between are gone',
      labels: ['resource'],
    }),
  };
}
