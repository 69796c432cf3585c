import { AGENT_SETTINGS } from '../agent/config.ts';
import { createAgentMetrics } from '../agent/metrics.ts';
import { BROKER_SETTINGS } from '../broker/config.ts';
import { declareBrokerMetrics } from '../broker/metrics.ts';
import { GATEWAY_SETTINGS } from '../gateway/config.ts';
import { declareGatewayMetrics } from '../gateway/metrics.ts';
import { systemClock } from '../lib/clock.ts';
import { describeConfig, type SettingRow } from '../lib/config.ts';
import { ERRORS } from '../lib/errors.ts';
import type { MetricOptions, Metrics } from '../lib/metrics.ts';
import { countSpans } from '../lib/telemetry.ts';

/** The reference pages that are tables in the code: settings, errors, metrics. */
export async function generateReference(): Promise<ReadonlyMap<string, string>> {
  return new Map([
    ['docs/reference/broker-settings.md', settingsPage('broker', describeConfig(BROKER_SETTINGS))],
    ['docs/reference/agent-settings.md', settingsPage('agent', describeConfig(AGENT_SETTINGS))],
    ['docs/reference/gateway-settings.md', settingsPage('gateway', describeConfig(GATEWAY_SETTINGS))],
    ['docs/reference/errors.md', errorsPage()],
    ['docs/reference/broker-metrics.md', brokerMetricsPage()],
    ['docs/reference/metrics.md', agentMetricsPage()],
    ['docs/reference/gateway-metrics.md', gatewayMetricsPage()],
  ]);
}

function settingsPage(program: string, rows: readonly SettingRow[]): string {
  const lines = rows.map((row) => {
    const names = [row.variable, ...row.aliases].map((name) => `\`${name}\``).join(', ');
    const limits = row.limits === '' ? '' : ` (${row.limits})`;
    return `| \`${row.key}\` | ${names} | ${row.type}${limits} | ${row.default === '' ? '–' : `\`${row.default}\``} | ${tableText(row.meaning)}${row.secret ? '; secret, also from the file named by the variable with `_FILE` appended' : ''} |`;
  });
  return `# Settings of the ${program}

Generated from \`${program}/config.ts\`. The environment wins over the file named by \`BROKKR_CONFIG_FILE\` (YAML or JSON, one mapping a section),
which wins over the defaults. Every problem is reported at once, before anything opens.

| Setting | Variable | Type | Default | Meaning |
|---|---|---|---|---|
${lines.join('\n')}
`;
}

function errorsPage(): string {
  const lines = Object.entries(ERRORS).map(([name, [code, status]]) => `| \`${name}\` | ${status} | ${code} |`);
  return `# Errors

Generated from \`lib/errors.ts\`. Every error is \`{code, message, details?}\`: REST answers it as the body, RPC clients find it as the detail
\`brokkr.v1.Error\`. The name is part of the contract, the message is not.

| Name | HTTP status (REST) | gRPC code |
|---|---|---|
${lines.join('\n')}
`;
}

/** A table of metrics, by declaring them to a registry that only takes notes. */
function metricsTable(declare: (notes: Metrics) => unknown): string {
  const lines: string[] = [];
  const note = (type: string) => (options: MetricOptions<string>) => {
    const labels = (options.labels ?? []).map((label) => `\`${label}\``).join(', ');
    lines.push(`| \`brokkr_${options.name}\` | ${type} | ${labels || '–'} | ${tableText(options.help)} |`);
    return undefined as never;
  };
  const notes = { counter: note('counter'), gauge: note('gauge'), histogram: note('histogram'), text: unread, contentType: '' };
  declare(notes);
  countSpans(notes, undefined); // every process has it
  return `| Metric | Type | Labels | Meaning |
|---|---|---|---|
${lines.toSorted().join('\n')}

Of the process, from the first scrape on: \`process_resident_memory_bytes\` (RSS), \`process_cpu_seconds_total\`, \`nodejs_eventloop_lag_seconds\`
(delay of the event loop) with its percentiles, \`nodejs_heap_size_used_bytes\`, \`nodejs_gc_duration_seconds\`.
`;
}

function agentMetricsPage(): string {
  return `# Metrics of the agent

Generated from \`agent/metrics.ts\`. Prometheus text on the health port under \`/metrics\`. Labels come from small closed sets; of kinds and resources,
which come from users, the first hundred have their own value and the others are \`other\`. No label names an object or a stack.

${metricsTable((notes) => createAgentMetrics(notes, systemClock, () => undefined))}`;
}

/** Gauges are declared here and never read. */
function unread(): never {
  throw new Error('nothing is measured here');
}

function brokerMetricsPage(): string {
  const view = {
    ...{ poolUse: unread, sessions: unread, pendingEvents: unread, listener: unread, webhookAttempts: unread, fleet: unread },
    ...{ yaml: { counts: { parse: 0, prepare: 0, check: 0, diff: 0 }, queued: 0 }, clock: systemClock },
  };
  return `# Metrics of the broker

Generated from \`broker/metrics.ts\`. Prometheus text on the port of the API under \`/metrics\`, without a key; \`broker.metrics: false\` closes it.
Labels come from closed sets. What is true of the fleet is counted in the database, at most every 10 s and in at most a twentieth of the
time, and is the same on every replica: take the maximum, not the sum.

${metricsTable((notes) => declareBrokerMetrics(notes, view))}`;
}

function gatewayMetricsPage(): string {
  const view = { listener: unread, endpoints: unread, clock: systemClock };
  return `# Metrics of the gateway

Generated from \`gateway/metrics.ts\`. Prometheus text on the admin port under \`/metrics\`. Labels come from closed sets; endpoints are those of the
settings.

${metricsTable((notes) => declareGatewayMetrics(notes, view))}`;
}

function tableText(text: string): string {
  return text.replaceAll('|', '\\|');
}
