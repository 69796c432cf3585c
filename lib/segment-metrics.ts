import { readFile } from 'node:fs/promises';
import type { Metrics, Totals } from './metrics.ts';

/** Linux counts for each network namespace: in a cluster, for the pod (proc_pid_net(5); the names are those of RFC 4022). */
const COUNTS_FILE = '/proc/net/snmp';

/** Declares the kernel's counts of TCP segments, in which lost packets show. `prefix` is put before the name. Other kernels have none. */
export function declareSegmentMetrics(metrics: Metrics, prefix: string): void {
  metrics.counter({
    name: `${prefix}tcp_segments_total`,
    help: 'TCP segments sent from the network namespace of the process (the pod): sent is first, or again after a loss',
    labels: ['sent'],
    total: async () => segments(await readFile(COUNTS_FILE, 'utf8').catch(() => '')),
  });
}

function segments(text: string): Totals<'sent'> {
  const [names = [], values = []] = text.split('\n').flatMap((line) => (line.startsWith('Tcp: ') ? [line.split(' ')] : []));
  const count = (name: string) => Number(values[names.indexOf(name)]);
  if (!names.includes('RetransSegs')) return [];
  return [
    [{ sent: 'first' }, count('OutSegs')],
    [{ sent: 'again' }, count('RetransSegs')],
  ];
}
