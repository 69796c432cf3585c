import { crossingOf, directionsOf, isNorthSouth } from './directions.ts';
import type { FlowProblem } from './document.ts';
import { type FlowSet, listOf, type PlacedFlow } from './flowset.ts';
import { endpointNamed, hopsOf } from './hops.ts';
import { type Endpoint, type Facts, type Flow, type PortSpec, PROTOCOLS, type Protocol, type Zone } from './model.ts';
import { parsePort, portText } from './ports.ts';

/** What a flow is resolved with. */
export interface FlowContext {
  readonly zones: ReadonlyMap<string, Zone>;
  readonly endpoints: ReadonlyMap<string, Endpoint>;
  readonly facts: Facts;
  readonly problems: FlowProblem[];
}

/** The flows of a declaration: one for each pair of a source and a destination. Adds what is wrong to the problems. */
export function resolveFlow({ spec, at }: FlowSet, { flow: declared, path }: PlacedFlow, context: FlowContext): Flow[] {
  const place = at('spec', ...path);
  const report = (message: string) => context.problems.push({ place, message: `flow ${declared.id}: ${message}` });
  const shared = { ...wordsOf(declared), place };
  const flows: Flow[] = [];
  for (const [from, to] of listOf(declared.from).flatMap((source) => listOf(declared.to).map((end) => [source, end] as const))) {
    const [source, destination] = [endpointNamed(context, from), endpointNamed(context, to)];
    const ports = portsOf(declared.ports, destination, context.facts);
    if (ports.length === 0) report('it needs the field ports; all means every port');
    const crossing = crossingOf(source, destination, context.zones);
    const [derived = 'internal', ...others] = directionsOf(crossing);
    const direction = declared.direction ?? derived;
    if (direction !== derived && !others.includes(direction))
      report(`it is said to be ${direction}, but the zones of ${from} and ${to} make it ${[derived, ...others].join(' or ')}`);
    const northSouth = isNorthSouth(crossing);
    const protocols = protocolsOf(declared.protocol, spec.defaults?.protocol ?? 'TCP', ports, destination);
    const flow = { ...shared, from, to, ports, protocols, direction, northSouth };
    for (const problem of problemsOf(flow, source, context)) report(problem);
    flows.push(flow);
  }
  return flows;
}

function wordsOf(
  declared: PlacedFlow['flow'],
): Omit<Flow, 'from' | 'to' | 'ports' | 'protocols' | 'direction' | 'northSouth' | 'place'> {
  const {
    id,
    feature = '',
    application = '',
    purpose = '',
    purposes = {},
    label = '',
    tls = '',
    auth = '',
    owner = '',
    ticket = '',
  } = declared;
  const { expires = '', profiles = [], implicit = false, tables = [], accepted = [], kind = 'application' } = declared;
  const required = declared.required ?? feature === '';
  const via = (declared.via ?? []).map((hop) => ({ application: '', label: '', ...hop }));
  return {
    ...{ id, feature, required, kind, application, purpose, purposes, label, tls, auth, owner, ticket },
    ...{ expires, profiles, implicit, tables, accepted, via },
  };
}

function portsOf(declared: PlacedFlow['flow']['ports'], { peer }: Endpoint, facts: Facts): PortSpec[] {
  if (declared !== undefined)
    return listOf(declared)
      .map(parsePort)
      .filter((port) => typeof port !== 'string');
  const known = { 'kube-api': facts.apiServer.ports, dns: facts.dns.ports }[peer.kind as 'dns'] ?? [];
  return known.map((port) => ({ kind: 'range', first: port, last: port }));
}

function protocolsOf(
  declared: PlacedFlow['flow']['protocol'],
  usual: Protocol,
  ports: readonly PortSpec[],
  { peer }: Endpoint,
): readonly Protocol[] {
  if (declared !== undefined) return listOf(declared);
  if (peer.kind === 'dns') return ['UDP', 'TCP'];
  return ports.some(({ kind }) => kind === 'all') ? PROTOCOLS : [usual];
}

/** What a flow says that no policy could mean. */
function problemsOf(flow: Flow, source: Endpoint, context: FlowContext): string[] {
  const found: string[] = [];
  if (source.peer.kind === 'kube-api' && flow.kind !== 'webhook')
    found.push('what comes from the API server is of the kind webhook; nothing else can be told apart there');
  if (flow.kind === 'webhook' && source.peer.kind !== 'kube-api')
    found.push('webhooks come from an endpoint with builtin: kube-api');
  if (flow.kind === 'metrics' && source.peer.kind === 'any')
    found.push('metrics are for a named endpoint that scrapes them, not for any source');
  if (flow.ports.length > 1 && flow.ports.some(({ kind }) => kind === 'all')) found.push('all stands alone among the ports');
  for (const { to, ports, protocols } of hopsOf(context, flow)) {
    for (const port of ports) {
      if (port.kind !== 'name') continue;
      const known = Object.entries(to.namedPorts).filter(([, { protocol }]) => protocols.includes(protocol));
      if (!known.some(([name]) => name === port.name)) {
        const names = known.length === 0 ? 'none is declared' : `known are ${known.map(([name]) => name).join(', ')}`;
        found.push(`endpoint ${to.name} has no ${protocols.join(' or ')} port named ${portText(port)} in namedPorts, ${names}`);
      }
    }
  }
  return found;
}
