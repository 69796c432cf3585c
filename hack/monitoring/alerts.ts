import { AGENT_ALERTS } from './agent-alerts.ts';
import type { Alert, MonitoredChart } from './alert.ts';
import { BROKER_ALERTS } from './broker-alerts.ts';
import { EDGE_ALERTS } from './edge-alerts.ts';

/** All alerts, by the chart that installs them. */
export const ALERTS: Readonly<Record<MonitoredChart, readonly Alert[]>> = {
  'brokkr-broker': [...BROKER_ALERTS, ...EDGE_ALERTS],
  'brokkr-agent': AGENT_ALERTS,
};
