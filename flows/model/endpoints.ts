import type { FlowProblem } from './document.ts';
import { type EndpointBody, type FlowSet, listOf, type ServiceSpec, selectorOf } from './flowset.ts';
import type { Endpoint, Facts, Peer, ServicePort, Zone } from './model.ts';
import { blocksOf, expandRange, factsOfRange, familyOf } from './ranges.ts';

/** Name of the endpoint for the cluster's DNS, which is there in every model. */
export const DNS_ENDPOINT = 'dns';

/** The zones of a set, with defaults filled in. */
export function resolveZones({ spec, at }: FlowSet): ReadonlyMap<string, Zone> {
  const deny = spec.defaults?.deny ?? ['ingress', 'egress'];
  const zones = spec.zones.map(
    ({ name, title = name, namespace, cluster = '', isolate, trust = 'trusted', layer = '' }, index): Zone => {
      const isolated = namespace === undefined ? [] : (isolate ?? deny);
      const sorted = (['ingress', 'egress'] as const).filter((direction) => isolated.includes(direction));
      return { name, title, namespace, cluster, isolate: sorted, trust, layer, place: at('spec', 'zones', index) };
    },
  );
  return new Map(zones.map((zone) => [zone.name, zone]));
}

/** The endpoints of a set under the overlays of the profiles, with named ranges and facts filled in. Adds what is wrong to `problems`. */
export function resolveEndpoints(
  { spec, at }: FlowSet,
  profiles: readonly string[],
  zones: ReadonlyMap<string, Zone>,
  facts: Facts,
  problems: FlowProblem[],
): Map<string, Endpoint> {
  const endpoints = new Map<string, Endpoint>();
  for (const [name, { profiles: byProfile = {}, ...base }] of Object.entries(spec.endpoints)) {
    const place = at('spec', 'endpoints', name);
    const overlays = profiles.filter((profile) => byProfile[profile] !== undefined);
    const bodies = [base, spec.options?.[name] ?? {}, ...overlays.map((profile) => byProfile[profile] ?? {})];
    const body = bodies.reduce(overlay);
    const peer = peerOf(body, facts);
    const problem = problemOf(body, peer, zones);
    if (problem !== undefined) problems.push({ place, message: `endpoint ${name}: ${problem}` });
    const dns = body.dns ?? spec.defaults?.dns ?? true;
    endpoints.set(name, endpointOf(name, body, { peer, overlays, place, dns, facts: factsOf(body) }));
  }
  const dns = endpoints.get(DNS_ENDPOINT);
  if (dns && dns.peer.kind !== 'dns')
    problems.push({ place: dns.place, message: `the name ${DNS_ENDPOINT} is for the cluster's DNS, give it builtin: dns` });
  if (!dns) {
    endpoints.set(DNS_ENDPOINT, builtinEndpoint(DNS_ENDPOINT, 'dns', 'cluster DNS', at('spec', 'endpoints')));
  }
  return endpoints;
}

/** An endpoint that a set does not declare and a model needs. */
export function builtinEndpoint(name: string, builtin: 'dns' | 'kube-api', title: string, place: string): Endpoint {
  const body = { builtin, title };
  return endpointOf(name, body, { peer: { kind: builtin }, overlays: [], place, dns: false, facts: factsOf(body) });
}

const BUILTIN_FACTS = {
  'kube-api': ['apiServer.serviceIP', 'apiServer.endpoints', 'apiServer.ports'],
  dns: ['dns.namespace', 'dns.selector', 'dns.ports', 'dns.nodeLocalIP'],
} as const;

function factsOf({ builtin, cidr, except }: EndpointBody): readonly string[] {
  if (builtin) return BUILTIN_FACTS[builtin];
  return [...new Set([...listOf(cidr), ...listOf(except)].flatMap(factsOfRange))];
}

const IDENTITY = ['pods', 'namespaces', 'cidr', 'except', 'any', 'builtin', 'names'] as const;

/** Replaces fields; an overlay that says who the endpoint is replaces all that says so. */
function overlay(base: EndpointBody, over: EndpointBody): EndpointBody {
  const replaces = IDENTITY.some((field) => field in over) || over.services?.some(({ type }) => type === 'ExternalName') === true;
  if (!replaces) return { ...base, ...over };
  const kept = Object.entries(base).filter(([field]) => !(IDENTITY as readonly string[]).includes(field));
  return { ...Object.fromEntries(kept), ...over };
}

function peerOf(body: EndpointBody, facts: Facts): Peer {
  const names = [...(body.names ?? []), ...(body.services ?? []).flatMap(({ externalName }) => externalName ?? [])];
  const { cidrs, except } = rangesOf(body, facts);
  if (body.namespaces) return { kind: 'namespaces', namespaces: selectorOf(body.namespaces), pods: selectorOf(body.pods ?? {}) };
  if (body.pods) return { kind: 'pods', selector: selectorOf(body.pods) };
  if (body.any) return { kind: 'any' };
  if (body.builtin) return { kind: body.builtin };
  if (names.length > 0) return { kind: 'names', names, cidrs };
  return { kind: 'addresses', cidrs, except };
}

/** Ranges of the families that the cluster has, named sets expanded, with the exceptions that take something out of them. */
function rangesOf({ cidr, except }: EndpointBody, facts: Facts): { cidrs: readonly string[]; except: readonly string[] } {
  const expand = (ranges: readonly string[]) =>
    ranges.flatMap((range) => expandRange(range, facts)).filter((range) => facts.ipFamilies.includes(familyOf(range)));
  const blocks = blocksOf(expand(listOf(cidr)), expand(listOf(except)));
  return { cidrs: blocks.map((block) => block.cidr), except: [...new Set(blocks.flatMap((block) => block.except))] };
}

function problemOf(body: EndpointBody, peer: Peer, zones: ReadonlyMap<string, Zone>): string | undefined {
  const zone = body.zone === undefined ? undefined : zones.get(body.zone);
  if (peer.kind === 'pods' && zone?.namespace === undefined) return 'pods need a zone with a namespace';
  if (peer.kind === 'addresses' && peer.cidrs.length === 0)
    return `none of the addresses ${listOf(body.cidr).join(', ')} is left, given the exceptions and the families of the cluster`;
  if (body.self === 'agent' && peer.kind !== 'pods') return 'self: agent goes with pods';
  return undefined;
}

/** What of an endpoint is not in its body. */
interface Resolved {
  readonly peer: Peer;
  readonly overlays: readonly string[];
  readonly place: string;
  readonly dns: boolean;
  readonly facts: readonly string[];
}

function endpointOf(name: string, body: EndpointBody, resolved: Resolved): Endpoint {
  const outside = resolved.peer.kind === 'addresses' || resolved.peer.kind === 'names' || resolved.peer.kind === 'any';
  const namedPorts = Object.entries(body.namedPorts ?? {});
  return {
    ...resolved,
    name,
    title: body.title ?? name,
    titles: body.titles ?? {},
    description: body.description ?? '',
    zone: body.zone ?? '',
    element: body.element ?? (outside ? 'external' : 'system'),
    namedPorts: Object.fromEntries(namedPorts.map(([port, { protocol = 'TCP', ...rest }]) => [port, { ...rest, protocol }])),
    servicePorts: (body.services ?? []).flatMap(servicePortsOf),
    hostPorts: body.hostPorts ?? [],
    firewall: {
      cidrs: body.firewall?.cidrs ?? [],
      awsSecurityGroup: body.firewall?.awsSecurityGroup,
      gcpTag: body.firewall?.gcpTag,
      azureApplicationSecurityGroup: body.firewall?.azureApplicationSecurityGroup,
    },
    self: body.self ?? '',
  };
}

function servicePortsOf({ name, type = 'ClusterIP', ports = [] }: ServiceSpec): ServicePort[] {
  return ports.map(({ port, targetPort = port, protocol = 'TCP' }) => ({ service: name, type, protocol, port, targetPort }));
}
