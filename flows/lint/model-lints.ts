import { selects } from '#flows/evaluate/label-selector.ts';
import { endpointNamed, hopsOf } from '#flows/model/hops.ts';
import type { Endpoint, Flow, Model } from '#flows/model/model.ts';
import { leaksOf } from './leaks.ts';

/** Ids of the lints over flow sets; `DOC-DRIFT`, which needs a truth table beside the set, is in doc-drift.ts. */
export const MODEL_LINTS = [
  ...(['UNUSED-FLOW', 'WORKLOAD-WITHOUT-FLOW', 'EXPOSURE-IN-PRODUCTION', 'EXPIRED-FLOW', 'SERVICE-PORT'] as const),
  ...(['HOST-PORT-CONFLICT', 'PRIVATE-LEAK', 'POD-CIDR-LEAK', 'BROAD-CIDR', 'HALF-OPEN'] as const),
] as const;

/** What a lint says about one flow or endpoint. */
export interface ModelFinding {
  readonly lint: (typeof MODEL_LINTS)[number] | 'DOC-DRIFT';
  /** An error must not be compiled. */
  readonly severity: 'error' | 'warning';
  /** Flow or endpoint. */
  readonly subject: string;
  /** `flows.yaml:31:7`. */
  readonly place: string;
  /** Lower case, no full stop. */
  readonly message: string;
  /** Why it is accepted; undefined when it is not. */
  readonly accepted: string | undefined;
}

type Finding = Omit<ModelFinding, 'accepted' | 'lint'> & { readonly lint: (typeof MODEL_LINTS)[number] };

/** What is suspicious in a model, in the order of the lints; what is accepted says why. */
export function lintModel(model: Model): ModelFinding[] {
  const found = [
    ...unusedFlows(model),
    ...workloadsWithoutFlow(model),
    ...exposures(model),
    ...expiredFlows(model),
    ...servicePorts(model),
    ...hostPortConflicts(model),
    ...model.flows.flatMap((flow) => leaksOf(model, flow).map((leak) => ({ ...about(flow), ...leak }))),
    ...halfOpen(model),
  ];
  return accept(model, found);
}

/**
 * Ways from the world into production that no one has declared for production alone: through a flow that is shared with another profile
 * or with all, or through an end that the overlay of another profile has changed. A compile with one that is not accepted fails.
 */
export function productionExposures(model: Model): ModelFinding[] {
  return accept(model, exposures(model)).filter(({ accepted }) => accepted === undefined);
}

function accept(model: Model, found: readonly Finding[]): ModelFinding[] {
  const byId = Map.groupBy([...model.flows, ...model.dropped.map(({ flow }) => flow)], ({ id }) => id);
  return found.map((finding) => {
    const ofFlow = byId.get(finding.subject)?.flatMap(({ accepted }) => accepted) ?? [];
    const ofSet = model.accepted.filter(({ subject }) => subject === '' || subject === finding.subject);
    return { ...finding, accepted: [...ofFlow, ...ofSet].find(({ lint }) => lint === finding.lint)?.reason };
  });
}

function about({ id, place }: Flow): Pick<Finding, 'subject' | 'place'> {
  return { subject: id, place };
}

function isEnforced(model: Model, endpoint: Endpoint, direction: 'ingress' | 'egress'): boolean {
  return endpoint.peer.kind === 'pods' && model.zones.get(endpoint.zone)?.isolate.includes(direction) === true;
}

function unusedFlows(model: Model): Finding[] {
  if (![...model.zones.values()].some(({ isolate }) => isolate.length > 0)) return [];
  const idle = model.flows.filter(
    (flow) => !hopsOf(model, flow).some(({ from, to }) => isEnforced(model, from, 'egress') || isEnforced(model, to, 'ingress')),
  );
  return idle.map((flow) => {
    const message = `no policy comes of it: neither ${flow.from} nor ${flow.to} is in a zone that denies this direction`;
    return { lint: 'UNUSED-FLOW', severity: 'warning', ...about(flow), message };
  });
}

function workloadsWithoutFlow(model: Model): Finding[] {
  const named = new Set(
    model.flows
      .filter(({ kind }) => kind !== 'dns')
      .flatMap((flow) => hopsOf(model, flow).flatMap(({ from, to }) => [from.name, to.name])),
  );
  const forgotten = [...model.endpoints.values()].filter(
    (endpoint) => (isEnforced(model, endpoint, 'ingress') || isEnforced(model, endpoint, 'egress')) && !named.has(endpoint.name),
  );
  return forgotten.map(({ name, zone, place }) => {
    const message = `zone ${zone} denies by default and no flow names ${name}: it reaches nothing and nothing reaches it`;
    return { lint: 'WORKLOAD-WITHOUT-FLOW', severity: 'warning', subject: name, place, message };
  });
}

const PRODUCTION = 'production';

function exposures(model: Model): Finding[] {
  if (!model.profiles.includes(PRODUCTION)) return [];
  const found: Finding[] = [];
  for (const flow of model.flows) {
    const [from, to] = [endpointNamed(model, flow.from), endpointNamed(model, flow.to)];
    if (!isWorld(from)) continue;
    const foreign = [...from.overlays, ...to.overlays].find((profile) => profile !== PRODUCTION);
    const shared = flow.profiles.some((profile) => profile !== PRODUCTION) || flow.profiles.length === 0;
    if (!shared && foreign === undefined) continue;
    const declared =
      flow.profiles.length === 0 ? 'a declaration for all profiles' : `a declaration for ${flow.profiles.join(', ')}`;
    const way = shared ? declared : `the overlay of ${foreign}`;
    const message = `${from.name} reaches ${to.name} in production through ${way}: declare it for production alone, or take it away`;
    found.push({ lint: 'EXPOSURE-IN-PRODUCTION', severity: 'error', ...about(flow), message });
  }
  return found;
}

/** Whether an endpoint is the world: any source, or ranges so wide that they are nobody's own (shorter than /8, of IPv6 than /16). */
function isWorld({ peer }: Endpoint): boolean {
  if (peer.kind !== 'addresses') return peer.kind === 'any';
  return peer.cidrs.some((cidr) => Number(cidr.split('/')[1]) < (cidr.includes(':') ? 16 : 8));
}

function expiredFlows({ dropped }: Model): Finding[] {
  return dropped
    .filter(({ why }) => why === 'expired')
    .map(({ flow }) => {
      const message = `it expired on ${flow.expires} and is not compiled any more: take it away, or agree on a new date`;
      return { lint: 'EXPIRED-FLOW', severity: 'warning', ...about(flow), message };
    });
}

function servicePorts(model: Model): Finding[] {
  return model.flows.flatMap((flow) =>
    hopsOf(model, flow).flatMap(({ mapped, to }) =>
      mapped.map(({ service, port, targetPort }): Finding => {
        const message = `port ${port} is that of Service ${service}; the pods of ${to.name} listen on ${targetPort}, where policies act`;
        return { lint: 'SERVICE-PORT', severity: 'warning', ...about(flow), message };
      }),
    ),
  );
}

function hostPortConflicts(model: Model): Finding[] {
  const owners = new Map<number, Endpoint>();
  const found: Finding[] = [];
  for (const endpoint of model.endpoints.values()) {
    for (const { host } of endpoint.hostPorts) {
      const owner = owners.get(host);
      owners.set(host, owner ?? endpoint);
      if (!owner) continue;
      const message = `port ${host} of the host is mapped to ${owner.name} already`;
      found.push({ lint: 'HOST-PORT-CONFLICT', severity: 'error', subject: endpoint.name, place: endpoint.place, message });
    }
  }
  return found;
}

/** Namespaces by label are opened at the other end only: in a zone of this set that denies too, nothing opens their own end. */
function halfOpen(model: Model): Finding[] {
  return model.flows.flatMap((flow) =>
    (['from', 'to'] as const).flatMap((end) => {
      const { name, peer } = endpointNamed(model, flow[end]);
      if (peer.kind !== 'namespaces' || Object.keys(peer.namespaces).length === 0) return [];
      const direction = end === 'from' ? 'egress' : 'ingress';
      const closed = [...model.zones.values()].filter(
        ({ namespace, isolate }) =>
          namespace !== undefined &&
          isolate.includes(direction) &&
          selects(peer.namespaces, { 'kubernetes.io/metadata.name': namespace }),
      );
      return closed.map((zone): Finding => {
        const message = `${name} names pods of zone ${zone.name}, which denies ${direction}: give them an endpoint of that zone`;
        return { lint: 'HALF-OPEN', severity: 'warning', ...about(flow), message };
      });
    }),
  );
}
