import { type Dashboard, panel, processOf, quantiles, rate, segments } from './panel.ts';

/** All dashboards. */
export const DASHBOARDS: readonly Dashboard[] = [
  {
    uid: 'brokkr-broker',
    title: 'Brokkr / Broker',
    purpose: 'the service: is it up, fast and right, and is its database',
    chart: 'brokkr-broker',
    rows: [
      {
        title: 'Now',
        panels: [
          panel(
            'Brokers and database',
            'short',
            ['count(brokkr_database_up)', 'brokers'],
            ['min(brokkr_database_up)', 'database up'],
          ),
          panel('Agents', 'short', ['max by (state) (brokkr_agents)', '{{state}}']),
          panel('Error ratio', 'percentunit', [
            '(sum(rate(brokkr_http_requests_total{status=~"5.."}[$__rate_interval])) or vector(0)) / sum(rate(brokkr_http_requests_total[$__rate_interval]))',
            '5xx',
          ]),
        ],
      },
      {
        title: 'Requests',
        panels: [
          panel('Requests', 'reqps', rate('brokkr_http_requests_total', 'status')),
          panel('Requests by endpoint', 'reqps', rate('brokkr_http_requests_total', 'endpoint')),
          panel('Errors by endpoint', 'reqps', rate('brokkr_http_requests_total{status=~"[45].."}', 'endpoint, status')),
          panel('Latency', 's', ...quantiles('brokkr_http_request_duration_seconds')),
          panel('Latency by endpoint', 's', ...quantiles('brokkr_http_request_duration_seconds', 'endpoint').slice(1)),
          panel('YAML', 'ops', rate('brokkr_yaml_tasks_total', 'task'), ['max(brokkr_yaml_queue)', 'waiting']),
        ],
      },
      {
        title: 'Database and reports',
        panels: [
          panel('Database pool', 'short', ['sum by (state) (brokkr_database_pool_connections)', '{{state}}']),
          panel('Reports waiting', 'short', ['sum(brokkr_pending_events)', 'events']),
          panel('Process of the broker', 'short', ['process_open_fds{job=~".*brokkr-broker.*"}', '{{instance}} open files']),
        ],
      },
      {
        title: 'Webhooks',
        panels: [
          panel('Webhook attempts', 'ops', rate('brokkr_webhook_attempts_total', 'result')),
          panel('Duration of webhook attempts', 's', ...quantiles('brokkr_webhook_attempt_duration_seconds')),
          panel(
            'Webhooks waiting',
            'short',
            ['max(brokkr_webhook_deliveries_due)', 'due'],
            ['max(brokkr_webhook_deliveries_overdue_seconds)', 'first due for seconds'],
            ['sum(brokkr_webhook_attempts_in_flight)', 'under way'],
          ),
        ],
      },
      { title: 'Process', panels: processOf('brokkr-broker') },
    ],
  },
  {
    uid: 'brokkr-agents',
    title: 'Brokkr / Agents',
    purpose: 'clusters: is the agent connected, does it get things applied, does the API server keep up',
    chart: 'brokkr-agent',
    rows: [
      {
        title: 'Session',
        panels: [
          panel('Sessions', 'short', ['sum by (tier) (brokkr_agent_session_up)', '{{tier}}']),
          panel('Without session', 's', ['brokkr_agent_without_session_seconds', '{{instance}}']),
          panel('Ends of sessions', 'ops', rate('brokkr_agent_session_ends_total', 'tier, kind')),
          panel('Polls', 'ops', rate('brokkr_agent_poll_requests_total', 'status')),
          panel('Duration of polls', 's', ...quantiles('brokkr_agent_poll_duration_seconds')),
          panel('Events not acknowledged', 'short', ['brokkr_agent_pending_events', '{{instance}}']),
        ],
      },
      {
        title: 'API server',
        panels: [
          panel('Requests to the API server', 'reqps', rate('brokkr_agent_kubernetes_operations_total', 'operation, code')),
          panel('Duration of requests', 's', ...quantiles('brokkr_agent_kubernetes_operation_duration_seconds')),
          panel(
            'In flight',
            'short',
            ['brokkr_agent_kubernetes_requests_in_flight', '{{instance}} in flight'],
            ['brokkr_agent_kubernetes_concurrency_limit', '{{instance}} allowed writes'],
          ),
          panel('Down', 'short', ['brokkr_agent_kubernetes_circuit_open', '{{instance}}']),
          panel('Watches', 'ops', rate('brokkr_agent_watch_lists_total', 'resource')),
          panel('Silence of watches', 's', ['max by (instance) (brokkr_agent_watch_silence_seconds)', '{{instance}}']),
        ],
      },
      {
        title: 'Process',
        panels: [
          ...processOf('brokkr-agent'),
          panel('YAML', 'ops', rate('brokkr_agent_yaml_tasks_total', 'task'), ['max(brokkr_agent_yaml_queue)', 'waiting']),
          panel('Clock', 's', ['brokkr_agent_clock_offset_seconds', '{{instance}}']),
          panel('Inventories', 'bytes', ['brokkr_agent_inventory_bytes', '{{instance}}']),
        ],
      },
    ],
  },
  {
    uid: 'brokkr-stacks',
    title: 'Brokkr / Stacks',
    purpose: 'deliveries over the fleet: how far, how fast, what waits and what does not work',
    chart: 'brokkr-broker',
    rows: [
      {
        title: 'Where stacks are',
        panels: [
          panel('Stacks and objects', 'short', ['max(brokkr_stacks)', 'stacks'], ['max(brokkr_stack_objects)', 'objects']),
          panel('Stacks on agents by phase', 'short', ['max by (phase) (brokkr_delivery_phase)', '{{phase}}']),
          panel('Stacks on agents by health', 'short', ['max by (health) (brokkr_delivery_health)', '{{health}}']),
        ],
      },
      {
        title: 'How fast they get there',
        panels: [
          panel('Deliveries', 'ops', rate('brokkr_delivery_duration_seconds_count', 'stage')),
          panel('Time since publication', 's', ...quantiles('brokkr_delivery_duration_seconds', 'stage')),
          panel('Stacks waiting to be sent', 'short', ['sum(brokkr_dirty_keys)', 'stacks']),
          panel('Backlog', 'short', ['max by (stage) (brokkr_delivery_backlog)', '{{stage}}']),
          panel('Oldest in the backlog', 's', ['max by (stage) (brokkr_delivery_backlog_oldest_seconds)', '{{stage}}']),
          panel(
            'Disagreement',
            'ops',
            ['sum(rate(brokkr_digest_mismatches_total[$__rate_interval]))', 'digest mismatches'],
            rate('brokkr_refused_frames_total', 'reason'),
          ),
        ],
      },
      {
        title: 'What agents do with them',
        panels: [
          panel('Objects applied', 'ops', rate('brokkr_agent_apply_total', 'result')),
          panel('Duration of applies', 's', ...quantiles('brokkr_agent_apply_duration_seconds')),
          panel('Lag of whole generations', 's', ...quantiles('brokkr_agent_sync_lag_seconds')),
          panel('Objects', 'short', ['sum by (state) (brokkr_agent_objects)', '{{state}}']),
          panel('Removals', 'ops', rate('brokkr_agent_prune_total', 'result')),
          panel('Drift', 'ops', rate('brokkr_agent_drift_detected_total', 'kind, manager')),
          panel('Drift corrected', 'ops', rate('brokkr_agent_drift_corrected_total', 'kind')),
          panel('Time in phases', 's', ...quantiles('brokkr_agent_sync_phase_duration_seconds', 'phase').slice(1)),
          panel(
            'Failing',
            'short',
            ['sum(brokkr_agent_failing_stacks)', 'stacks'],
            ['max(brokkr_agent_oldest_terminating_seconds)', 'oldest deletion, seconds'],
          ),
        ],
      },
    ],
  },
  {
    uid: 'brokkr-network',
    title: 'Brokkr / Network',
    purpose: 'the way between the parts: connections, bandwidth, loss, names, and the service at each end',
    chart: 'brokkr-broker',
    rows: [
      {
        title: 'Connections',
        panels: [
          panel(
            'Connections',
            'short',
            ['sum(brokkr_connections)', 'broker'],
            ['sum(brokkr_gateway_connections)', 'gateway'],
            ['sum by (transport) (brokkr_sessions)', 'sessions {{transport}}'],
          ),
          panel(
            'New connections',
            'ops',
            ['sum(rate(brokkr_connections_accepted_total[$__rate_interval]))', 'broker'],
            ['sum(rate(brokkr_gateway_connections_accepted_total[$__rate_interval]))', 'gateway'],
          ),
          panel('Sessions opened', 'ops', rate('brokkr_sessions_opened_total', 'transport')),
        ],
      },
      {
        title: 'Bandwidth and loss',
        panels: [
          panel('Bandwidth of the broker', 'Bps', rate('brokkr_network_bytes_total', 'direction')),
          panel('Bandwidth of the gateway', 'Bps', rate('brokkr_gateway_network_bytes_total', 'direction')),
          panel('Segments sent again', 'percentunit', segments(''), segments('gateway_'), segments('agent_')),
        ],
      },
      {
        title: 'Names and failures',
        panels: [
          panel(
            'DNS lookups',
            's',
            ...quantiles('brokkr_dns_lookup_duration_seconds')
              .slice(1)
              .map(([expr]) => [expr, 'broker p95'] as const),
            ...quantiles('brokkr_agent_dns_lookup_duration_seconds')
              .slice(1)
              .map(([expr]) => [expr, 'agents p95'] as const),
          ),
          panel('Connection failures of agents', 'ops', rate('brokkr_agent_connection_failures_total', 'to, kind')),
          panel('Upstream failures', 'ops', rate('brokkr_gateway_upstream_failures_total', 'endpoint, kind')),
        ],
      },
    ],
  },
  {
    uid: 'brokkr-edge',
    title: 'Brokkr / Ingress and security',
    purpose: 'the gateway, certificates, and who is turned away',
    chart: 'brokkr-broker',
    rows: [
      {
        title: 'Gateway',
        panels: [
          panel('Requests through the gateway', 'reqps', rate('brokkr_gateway_requests_total', 'version, status')),
          panel('Latency through the gateway', 's', ...quantiles('brokkr_gateway_request_duration_seconds', 'version')),
          panel('Upstreams', 'short', ['min by (endpoint) (brokkr_gateway_upstream_healthy)', '{{endpoint}} healthy']),
          panel(
            'Requests under way',
            'short',
            ['sum by (endpoint) (brokkr_gateway_upstream_requests)', '{{endpoint}}'],
            ['sum by (version) (brokkr_gateway_open_requests)', 'HTTP/{{version}}'],
          ),
          ...processOf('brokkr-gateway').slice(0, 2),
        ],
      },
      {
        title: 'Certificates and handshakes',
        panels: [
          panel(
            'Certificates expire in',
            's',
            [
              'min by (instance, file) (brokkr_certificate_expiry_seconds or brokkr_gateway_certificate_expiry_seconds)',
              '{{file}}',
            ],
            ['min(brokkr_agent_broker_certificate_expiry_seconds)', 'as agents see it'],
          ),
          panel('Failed handshakes at the gateway', 'ops', rate('brokkr_gateway_tls_handshake_failures_total', 'reason')),
          panel('Failed handshakes at the broker', 'ops', rate('brokkr_tls_handshake_failures_total', 'reason')),
        ],
      },
      {
        title: 'Turned away',
        panels: [
          panel('Keys refused', 'reqps', rate('brokkr_http_requests_total{status=~"401|403"}', 'endpoint, status')),
          panel('Sessions refused', 'ops', rate('brokkr_sessions_refused_total', 'code')),
          panel(
            'Connections dropped, secrets unreadable',
            'ops',
            ['sum(rate(brokkr_connections_dropped_total[$__rate_interval]))', 'dropped by the broker'],
            ['sum(rate(brokkr_gateway_connections_dropped_total[$__rate_interval]))', 'dropped by the gateway'],
            ['sum(rate(brokkr_webhook_decrypt_failures_total[$__rate_interval]))', 'secrets of webhooks unreadable'],
          ),
        ],
      },
    ],
  },
];
