import type { MonitoredChart } from './alert.ts';

/** Units as Grafana names them. */
export type Unit = 'short' | 's' | 'bytes' | 'Bps' | 'reqps' | 'ops' | 'percentunit';

/** A graph. */
export interface Panel {
  readonly title: string;
  readonly unit: Unit;
  /** Query and what its lines are called; `{{label}}` is filled in. */
  readonly queries: readonly (readonly [expr: string, legend: string])[];
}

/** A page of graphs. */
export interface Dashboard {
  readonly uid: string;
  readonly title: string;
  /** Who looks at it and when. */
  readonly purpose: string;
  readonly chart: MonitoredChart;
  readonly rows: readonly { readonly title: string; readonly panels: readonly Panel[] }[];
}

/** A graph of queries. */
export const panel = (title: string, unit: Unit, ...queries: Panel['queries']): Panel => ({ title, unit, queries });

/** The 50th and 95th percentile of a histogram. */
export const quantiles = (metric: string, by = ''): Panel['queries'] =>
  [0.5, 0.95].map((q) => {
    const labels = by === '' ? 'le' : `le, ${by}`;
    const legend = `p${q * 100}${by === '' ? '' : ` {{${by}}}`}`;
    return [`histogram_quantile(${q}, sum by (${labels}) (rate(${metric}_bucket[$__rate_interval])))`, legend] as const;
  });

/** Increase per second of a counter, summed. */
export const rate = (metric: string, by: string): readonly [string, string] => [
  `sum by (${by}) (rate(${metric}[$__rate_interval]))`,
  by
    .split(', ')
    .map((label) => `{{${label}}}`)
    .join(' '),
];

/** The process of a component. */
export const processOf = (component: string): readonly Panel[] => {
  const job = `{job=~".*${component}.*"}`;
  return [
    panel('Memory', 'bytes', [`process_resident_memory_bytes${job}`, '{{instance}}']),
    panel('CPU', 'short', [`rate(process_cpu_seconds_total${job}[$__rate_interval])`, '{{instance}} cores']),
    panel('Event loop', 's', [`nodejs_eventloop_lag_p99_seconds${job}`, '{{instance}} p99']),
  ];
};

/** Share of TCP segments that were sent again, of the processes whose metrics have that prefix. */
export const segments = (prefix: string): readonly [string, string] => [
  `sum(rate(brokkr_${prefix}tcp_segments_total{sent="again"}[$__rate_interval])) / sum(rate(brokkr_${prefix}tcp_segments_total[$__rate_interval]))`,
  `${prefix.replace('_', '') || 'broker'}`,
];
