import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** Name, help text and label names of a metric. Labels take values from small closed sets, never from users. */
export interface MetricOptions<L extends string> {
  /** With unit, without the `brokkr_` prefix: `session_duration_seconds`; counters end in `_total`. */
  readonly name: string;
  readonly help: string;
  readonly labels?: readonly L[];
}

/** Sets a gauge at a scrape. */
export type Collect<L extends string> = (gauge: Gauge<L>) => void | Promise<void>;

/** Counts by label values; a counter without labels has one. */
export type Totals<L extends string> = Iterable<readonly [labels: Partial<Record<L, string>>, total: number]>;

type ReadTotals<L extends string> = () => Totals<L> | Promise<Totals<L>>;

/** The metrics of one process: made once by its composition root, declared in one file. */
export interface Metrics {
  /** Goes up only. With `total` it is read at every scrape: what is counted elsewhere. */
  counter<const L extends string = never>(options: MetricOptions<L> & { readonly total?: ReadTotals<L> }): Counter<L>;
  /** `collect` runs at every scrape, to set the value then; it must be quick, or bounded. */
  gauge<const L extends string = never>(options: MetricOptions<L> & { readonly collect?: Collect<L> }): Gauge<L>;
  /** `buckets` are upper bounds in the metric's unit; `LATENCY_BUCKETS` when absent. */
  histogram<const L extends string = never>(options: MetricOptions<L> & { readonly buckets?: readonly number[] }): Histogram<L>;
  /** Everything in the Prometheus text format. Blocks the event loop for about 20 µs a series. */
  text(): Promise<string>;
  /** The content type of `text`. */
  readonly contentType: string;
}

/** Seconds; from the original's request histogram. */
const LATENCY_BUCKETS: readonly number[] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Gauges of prom-client named like counters, which promtool refuses; the same by type (`nodejs_active_resources`) stays. */
const MISNAMED = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

/**
 * A fresh registry; with `processMetrics` also memory, CPU, event loop and garbage collection of the process. These begin
 * with the first scrape: watching the event loop takes a timer of 10 ms, which is 0.45 % of a core, and 1 MiB.
 */
export function createMetrics({ processMetrics }: { readonly processMetrics: boolean }): Metrics {
  const registry = new Registry();
  let watched = !processMetrics;
  const common = <L extends string>({ name, help, labels = [] }: MetricOptions<L>) => {
    if (!/^[a-z][a-z0-9_]*$/.test(name) || name.startsWith('brokkr_')) throw new Error(`${name} is not a metric name of ours`);
    return { name: `brokkr_${name}`, help, labelNames: [...labels], registers: [registry] };
  };
  return {
    counter<L extends string>({ total, ...options }: MetricOptions<L> & { readonly total?: ReadTotals<L> }) {
      if (!options.name.endsWith('_total')) throw new Error(`the counter ${options.name} does not end in _total`);
      const counter: Counter<L> = new Counter<L>({
        ...common(options),
        ...(total && { collect: async () => recount(counter, await total()) }),
      });
      return counter;
    },
    gauge<L extends string>({ collect, ...options }: MetricOptions<L> & { readonly collect?: Collect<L> }) {
      const gauge: Gauge<L> = new Gauge<L>({ ...common(options), ...(collect && { collect: () => collect(gauge) }) });
      return gauge;
    },
    histogram({ buckets = LATENCY_BUCKETS, ...options }) {
      return new Histogram({ ...common(options), buckets: [...buckets] });
    },
    text() {
      if (!watched) collectDefaultMetrics({ register: registry });
      if (!watched) for (const name of MISNAMED) registry.removeSingleMetric(name);
      watched = true;
      return registry.metrics();
    },
    contentType: registry.contentType,
  };
}

function recount<L extends string>(counter: Counter<L>, totals: Totals<L>): void {
  counter.reset();
  for (const [labels, total] of totals) counter.inc(labels, total);
}
