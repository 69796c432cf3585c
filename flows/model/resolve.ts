import { type FlowProblem, FlowSetError } from './document.ts';
import { builtinEndpoint, DNS_ENDPOINT, resolveEndpoints, resolveZones } from './endpoints.ts';
import { resolveFlow } from './flows.ts';
import type { FlowSet } from './flowset.ts';
import type { DroppedFlow, Endpoint, Facts, Flow, Model, Zone } from './model.ts';
import { policyPart } from './policy-part.ts';

/** For what a flow set is resolved. */
export interface Selection {
  /** The base first, overlays after it. Empty: `production` where the set has it, else none. */
  readonly profiles?: readonly string[];
  /** Features to switch on beside those that are on by default. */
  readonly with?: readonly string[];
  /** Features to switch off; stronger than `with`. */
  readonly without?: readonly string[];
  /** YYYY-MM-DD; flows whose last day is before it are dropped. */
  readonly today: string;
  readonly facts: Facts;
}

/**
 * The model of a flow set for one profile, one set of features, one day and one cluster. Throws `FlowSetError` with everything that is
 * wrong under them: addresses of no family of the cluster, directions that the zones contradict, an agent cut off from its broker.
 */
export function resolve(set: FlowSet, { today, facts, ...selection }: Selection): Model {
  const profiles = chooseProfiles(set, selection.profiles ?? []);
  const isOn = chooseFeatures(set, selection.with ?? [], selection.without ?? []);
  const problems: FlowProblem[] = [];
  const zones = resolveZones(set);
  const endpoints = resolveEndpoints(set, profiles, zones, facts, problems);
  const [flows, dropped]: [Flow[], DroppedFlow[]] = [[], []];
  for (const placed of set.flows) {
    for (const flow of resolveFlow(set, placed, { zones, endpoints, facts, problems })) {
      const why = whyDropped(flow, { profiles, isOn, today });
      if (why === undefined) flows.push(flow);
      else dropped.push({ flow, why });
    }
  }
  flows.push(...addedFlows(zones, endpoints, flows, facts, problems));
  if (problems.length > 0) throw new FlowSetError(problems);
  const { title = '', singleton = false, accepted = [], inventory = [], tables = {} } = set.spec;
  return {
    ...{ name: set.name, title, profiles, singleton, facts, zones, endpoints, flows, dropped },
    accepted: accepted.map(({ lint, subject = '', reason }) => ({ lint, subject, reason })),
    tables: Object.entries(tables).map(([name, { title: heading = name, columns, sortBy }]) => {
      return {
        name,
        title: heading,
        columns: Object.entries(columns).map(([column, field]) => ({ title: column, field })),
        sortBy,
      };
    }),
    inventory: inventory.map(({ pod = '', namespace = '', description = '', ...rest }) => ({
      ...rest,
      pod,
      namespace,
      description,
    })),
  };
}

function chooseProfiles({ name, profiles }: FlowSet, wanted: readonly string[]): readonly string[] {
  const unknown = wanted.find((profile) => !profiles.includes(profile));
  if (unknown !== undefined) {
    const known = profiles.length === 0 ? 'it has none' : `known are ${profiles.join(', ')}`;
    throw new FlowSetError([{ place: name, message: `the flow set has no profile ${unknown}, ${known}` }]);
  }
  if (wanted.length > 0) return wanted;
  return profiles.includes('production') ? ['production'] : [];
}

function chooseFeatures({ name, features, spec }: FlowSet, on: readonly string[], off: readonly string[]) {
  const unknown = [...on, ...off].find((feature) => !features.includes(feature));
  if (unknown !== undefined) {
    const known = features.length === 0 ? 'no flow has one' : `known are ${features.join(', ')}`;
    throw new FlowSetError([{ place: name, message: `the flow set has no feature ${unknown}, ${known}` }]);
  }
  return (feature: string) => !off.includes(feature) && (on.includes(feature) || spec.features?.[feature] !== false);
}

/** What decides whether a flow is active. */
interface Choice {
  readonly profiles: readonly string[];
  readonly isOn: (feature: string) => boolean;
  readonly today: string;
}

function whyDropped(flow: Flow, { profiles, isOn, today }: Choice): DroppedFlow['why'] | undefined {
  if (flow.profiles.length > 0 && !flow.profiles.some((profile) => profiles.includes(profile))) return 'profile';
  if (flow.feature !== '' && !isOn(flow.feature)) return 'feature';
  return flow.expires !== '' && flow.expires < today ? 'expired' : undefined;
}

/**
 * What is allowed without being declared: DNS for the pods that have it, and for Brokkr's own agent DNS and the API server. Its way to the
 * broker cannot be guessed: without a flow of the kind `control` from it there is a problem, so that no set cuts off the agent that would
 * have to take it back.
 */
function addedFlows(
  zones: ReadonlyMap<string, Zone>,
  endpoints: Map<string, Endpoint>,
  flows: readonly Flow[],
  facts: Facts,
  problems: FlowProblem[],
): Flow[] {
  const added: Flow[] = [];
  const bySource = Map.groupBy(flows, ({ from }) => from);
  const peerOf = ({ to }: Flow) => endpoints.get(to)?.peer.kind;
  for (const endpoint of [...endpoints.values()]) {
    const isolated = zones.get(endpoint.zone)?.isolate.includes('egress') === true;
    if (endpoint.peer.kind !== 'pods' || !isolated) continue;
    const own = bySource.get(endpoint.name) ?? [];
    const isAgent = endpoint.self === 'agent';
    if ((endpoint.dns || isAgent) && !own.some((flow) => peerOf(flow) === 'dns'))
      added.push(addedFlow('dns', endpoint, DNS_ENDPOINT, facts));
    if (!isAgent) continue;
    if (!own.some((flow) => peerOf(flow) === 'kube-api')) {
      const api = [...endpoints.values()].find(({ peer }) => peer.kind === 'kube-api') ?? kubeApiBeside(endpoint, endpoints);
      added.push(addedFlow('kube-api', endpoint, api.name, facts));
    }
    if (!own.some(({ kind, required }) => kind === 'control' && required)) {
      const message = `endpoint ${endpoint.name} is Brokkr's agent: declare its required way to the broker, a flow of the kind control`;
      problems.push({ place: endpoint.place, message });
    }
  }
  return added;
}

/** Adds an endpoint for the API server to a set that names none. */
function kubeApiBeside({ place }: Endpoint, endpoints: Map<string, Endpoint>): Endpoint {
  const name = endpoints.has('kube-api') ? 'kubernetes-api' : 'kube-api';
  const api = builtinEndpoint(name, 'kube-api', 'Kubernetes API', place);
  endpoints.set(name, api);
  return api;
}

function addedFlow(what: 'dns' | 'kube-api', { name, place }: Endpoint, to: string, facts: Facts): Flow {
  const ports = what === 'dns' ? facts.dns.ports : facts.apiServer.ports;
  return {
    // no declared id has a dot, so it is nobody else's
    id: `${what}.${policyPart(name)}`,
    from: name,
    to,
    protocols: what === 'dns' ? ['UDP', 'TCP'] : ['TCP'],
    ports: ports.map((port) => ({ kind: 'range', first: port, last: port })),
    application: what === 'dns' ? 'DNS' : 'HTTPS',
    ...{ required: true, feature: '', direction: 'local', northSouth: false },
    kind: what === 'dns' ? 'dns' : 'control',
    purpose: what === 'dns' ? 'name resolution' : 'the agent applies what it is given',
    ...{
      purposes: {},
      label: '',
      tls: '',
      auth: '',
      owner: '',
      ticket: '',
      expires: '',
      profiles: [],
      via: [],
      tables: [],
      accepted: [],
    },
    implicit: true,
    place,
  };
}
