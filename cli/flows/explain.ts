import type { Service } from '#flows/evaluate/cluster.ts';
import { type Endpoint, endpointLabel, parseEndpointName } from '#flows/evaluate/endpoint.ts';
import { nearestRule } from '#flows/evaluate/explain.ts';
import { selects } from '#flows/evaluate/label-selector.ts';
import { isPort } from '#flows/evaluate/network-policy.ts';
import type { Cell, SideVerdict } from '#flows/evaluate/verdict.ts';
import { type Direction, PROTOCOLS } from '#flows/model/model.ts';
import { errorText } from '#lib/errors.ts';
import type { Cli } from '../cli.ts';
import { CliError, EXIT, type ExitCode, usageError } from '../failure.ts';
import { type ClusterOptions, type ClusterView, readClusterView } from './cluster-view.ts';
import { explainNamespace } from './explain-namespace.ts';

/** Options of `brokkr flows explain`. */
export interface ExplainOptions extends ClusterOptions {
  /** In place of a connection. */
  readonly namespace?: string;
  readonly output: 'table' | 'json';
}

/** One connection and what is said about it. */
interface Explanation {
  readonly source: string;
  readonly destination: string;
  readonly protocol: string;
  readonly port: number;
  readonly verdict: string;
  readonly reason: string;
  readonly cniDependent: boolean;
  readonly sides: readonly SideExplanation[];
}

interface SideExplanation {
  readonly side: Direction;
  readonly outcome: string;
  readonly reason: string;
  readonly by: readonly { readonly label: string; readonly place: string }[];
  readonly nearest?: { readonly label: string; readonly place: string; readonly changes: readonly string[] };
}

/** A connection as it was typed. */
export interface AskedConnection {
  readonly from?: string;
  readonly to?: string;
  readonly port?: string;
}

/**
 * `brokkr flows explain`: whether one connection is open, what decided it, and what is missing; 0 when it is open, 3 when it is not. With
 * `--namespace`, what policies admit for all of its pods.
 */
export async function explain(
  cli: Cli,
  { from, to, port }: AskedConnection,
  options: ExplainOptions,
  stdin: NodeJS.ReadableStream,
): Promise<ExitCode> {
  if (options.namespace !== undefined && from === undefined) {
    explainNamespace(cli, await readClusterView(options, stdin), options.namespace, options.output);
    return EXIT.ok;
  }
  if (options.namespace !== undefined || from === undefined || to === undefined || port === undefined)
    throw usageError('name a source, a destination and a port, or --namespace alone');
  const asked = parsePort(port);
  const view = await readClusterView(options, stdin);
  const source = endOf(view, from);
  const explanations = destinations(view, to, asked).map(({ destination, port: target }) =>
    explainCell(view, { source, destination, protocol: asked.protocol, port: target }),
  );
  if (options.output === 'json') cli.terminal.line(JSON.stringify({ explanations }, undefined, 2));
  else for (const explanation of explanations) printExplanation(cli, explanation);
  return explanations.every(({ verdict }) => verdict === 'allowed') ? EXIT.ok : EXIT.differences;
}

function parsePort(text: string): { protocol: Cell['protocol']; port: number } {
  const [number = '', name = 'TCP', ...more] = text.split('/');
  const protocol = PROTOCOLS.find((each) => each === name.toUpperCase());
  const port = Number(number);
  if (protocol && more.length === 0 && /^[0-9]+$/.test(number) && isPort(port)) return { protocol, port };
  throw usageError(`${JSON.stringify(text)} is not a port such as 5432 or 53/UDP`);
}

function endOf({ evaluator }: ClusterView, text: string): Endpoint {
  const name = parseEndpointName(text);
  if (!name) throw usageError(`${JSON.stringify(text)} is neither namespace/pod nor an address`);
  try {
    return evaluator.endpoint(name);
  } catch (error) {
    throw new CliError('not_found', errorText(error), { cause: error });
  }
}

/** The destination, or the pods behind it when it names a Service and no pod: policies act behind the Service. */
function destinations(
  view: ClusterView,
  to: string,
  asked: { protocol: Cell['protocol']; port: number },
): { destination: Endpoint; port: number }[] {
  const { cluster } = view.evaluator;
  const isPodName = cluster.pods.some(({ namespace, name }) => to === `${namespace.name}/${name}`);
  const service = isPodName ? undefined : cluster.services.find(({ namespace, name }) => to === `${namespace}/${name}`);
  if (!service) return [{ destination: endOf(view, to), port: asked.port }];
  const found = service.ports.find(({ protocol, port }) => protocol === asked.protocol && port === asked.port);
  if (!found) throw new CliError('not_found', `the Service ${to} has no port ${asked.port}/${asked.protocol}`);
  const targets = cluster.pods.flatMap((pod, index) => {
    const isBehind = pod.namespace.name === service.namespace && isSelectedBy(service, pod.labels);
    const named = pod.ports.find(({ name, protocol }) => name === found.targetPort && protocol === found.protocol)?.port;
    const port = typeof found.targetPort === 'number' ? found.targetPort : named;
    return isBehind && port !== undefined ? [{ destination: { kind: 'pod', pod, index } as const, port }] : [];
  });
  if (targets.length === 0)
    throw new CliError('not_found', `no pod is behind port ${asked.port}/${asked.protocol} of the Service ${to}`);
  return targets;
}

function isSelectedBy({ selector }: Service, labels: Readonly<Record<string, string>>): boolean {
  return selector !== undefined && selects({ matchLabels: selector }, labels);
}

function explainCell(view: ClusterView, cell: Cell): Explanation {
  const { verdict, reason, egress, ingress, cniDependent } = view.evaluator.verdict(cell);
  return {
    ...{
      source: endpointLabel(cell.source),
      destination: endpointLabel(cell.destination),
      protocol: cell.protocol,
      port: cell.port,
    },
    ...{ verdict, reason, cniDependent },
    sides: [explainSide(view, cell, 'egress', egress), explainSide(view, cell, 'ingress', ingress)],
  };
}

function explainSide(view: ClusterView, cell: Cell, side: Direction, { outcome, reason, by }: SideVerdict): SideExplanation {
  const placed = <T extends { readonly place: SideVerdict['by'][number]['place'] }>(item: T) => ({
    ...item,
    place: view.placeText(item.place),
  });
  const nearest = outcome === 'denied' ? nearestRule(view.evaluator, cell, side) : undefined;
  const deciders = by.map(({ label, place }) => placed({ label, place }));
  return { side, outcome, reason, by: deciders, ...(nearest ? { nearest: placed(nearest) } : {}) };
}

function printExplanation(
  { terminal }: Cli,
  { source, destination, protocol, port, verdict, cniDependent, sides }: Explanation,
): void {
  const colour = verdict === 'allowed' ? 'green' : verdict === 'denied' ? 'red' : 'yellow';
  const mark = cniDependent ? ' (CNI-DEPENDENT: the other way to read ipBlock gives another verdict)' : '';
  terminal.line(`${source} → ${destination} ${protocol} ${port}: ${terminal.paint(colour, verdict)}${mark}`);
  for (const { side, outcome, reason, by, nearest } of sides) {
    terminal.line(`  ${side} ${outcome}: ${reason}`);
    for (const { label, place } of by) terminal.line(`    ${label} at ${place}`);
    if (!nearest) continue;
    terminal.line(`    nearest: ${nearest.label} at ${nearest.place}`);
    for (const change of nearest.changes) terminal.line(`      ${change}`);
  }
}
