/** The chart that installs an alert or a dashboard: the broker's also has those of the gateway in front of it. */
export type MonitoredChart = 'brokkr-broker' | 'brokkr-agent';

/** An alert: what Prometheus evaluates, and what whoever is called reads. */
export interface Alert {
  readonly name: string;
  /** Returns the measured value with a comparison at its end, so that the value itself can be looked at. */
  readonly expr: string;
  /** How long it has to hold. */
  readonly for: string;
  /** critical: somebody gets up; warning: in working hours. */
  readonly severity: 'critical' | 'warning';
  /** One line, with `$value` and labels of the expression. */
  readonly summary: string;
  readonly meaning: string;
  readonly look: string;
  readonly action: string;
}

/** Seconds; what is left of a certificate when somebody should look after it. */
export const FORTNIGHT = '14 * 86400';
