import { productionExposures } from '#flows/lint/model-lints.ts';
import { type FlowProblem, FlowSetError } from '#flows/model/document.ts';
import { hopsOf } from '#flows/model/hops.ts';
import type { Direction, Endpoint, LabelSelector, Model, Zone } from '#flows/model/model.ts';
import { policyPart } from '#flows/model/policy-part.ts';
import { canonicalJson, sourceDigest, type Value } from '#lib/object.ts';
import { type CiliumRule, ciliumRules } from './cilium.ts';
import type { CompileContext, Side } from './context.ts';
import { createNotes, type Note } from './notes.ts';
import { peersOf } from './peers.ts';
import { portsOf } from './policy-ports.ts';
import { mergeRules, type PolicyRule, type TracedRule } from './policy-rules.ts';

/** How a model is compiled. */
export interface CompileOptions {
  /** One policy for each endpoint, or one for each flow at each of its ends. Default `endpoint`. */
  readonly granularity?: 'endpoint' | 'flow';
  /** The cluster, in a flow set over several. */
  readonly cluster?: string;
  /** Let a rule for the API server have all addresses. Default false: it is refused. */
  readonly allowBroad?: boolean;
}

/** What a model compiles to. */
export interface Compiled {
  /** In the order to apply them: what allows first, default denials last. Keys are sorted: the same model gives the same text. */
  readonly objects: readonly PolicyObject[];
  /** What was mapped, assumed or cannot be said in a policy, by flow and endpoint. */
  readonly notes: readonly Note[];
}

/** A NetworkPolicy or a CiliumNetworkPolicy. */
export interface PolicyObject {
  readonly apiVersion: 'networking.k8s.io/v1' | 'cilium.io/v2';
  readonly kind: 'NetworkPolicy' | 'CiliumNetworkPolicy';
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
  };
  readonly spec: NetworkPolicySpec | CiliumPolicySpec;
}

/** `spec` of a NetworkPolicy, with everything written out. */
export interface NetworkPolicySpec {
  readonly podSelector: LabelSelector;
  readonly policyTypes: readonly ('Ingress' | 'Egress')[];
  readonly ingress?: readonly PolicyRule[];
  readonly egress?: readonly PolicyRule[];
}

/** `spec` of a CiliumNetworkPolicy, of which only egress is used. */
export interface CiliumPolicySpec {
  readonly endpointSelector: LabelSelector;
  readonly egress: readonly CiliumRule[];
}

/** Label with the name of the flow set. */
const FLOWSET_LABEL = 'net.brokkr.dev/flowset';
/** Label with the first 16 hexadecimal digits of the digest of the `spec`. */
const HASH_LABEL = 'net.brokkr.dev/hash';
/** Annotation with the ids of the flows of each rule, by direction and index: `{"egress":[["fm-kafka"]]}`. */
const FLOWS_ANNOTATION = 'net.brokkr.dev/flows';

/** Puts default denials behind what allows, also over kinds; see docs/apply.md. */
const WAVE = { 'brokkr.io/wave': '1' };

/**
 * The policies of a model. Throws `FlowSetError` when a flow cannot be said (nobody would be its peer, the API server would be every
 * address), and when it opens production to the world by accident (`EXPOSURE-IN-PRODUCTION`). Only pods of zones that isolate get policies; the other end of a flow is opened by the other end's policy.
 */
export function compile(model: Model, { granularity = 'endpoint', cluster, allowBroad = false }: CompileOptions = {}): Compiled {
  const problems: FlowProblem[] = productionExposures(model).map(({ place, lint, subject, message }) => ({
    place,
    message: `${lint}: flow ${subject}: ${message}`,
  }));
  const context: CompileContext = {
    model,
    cluster: chooseCluster(model, cluster),
    allowBroad,
    notes: createNotes(model),
    problems,
  };
  const zones = [...model.zones.values()].filter(
    ({ namespace, isolate, ...zone }) => namespace !== undefined && isolate.length > 0 && zone.cluster === context.cluster,
  ) as IsolatedZone[];
  const isolated = new Map(zones.map((zone) => [zone.name, zone]));
  const sides = sidesOf(context, isolated);
  const allowing: PolicyObject[] = [];
  for (const { name, zone, peer } of model.endpoints.values()) {
    const own = sides.get(name) ?? [];
    const home = isolated.get(zone);
    if (!home || peer.kind !== 'pods' || own.length === 0) continue;
    const groups = granularity === 'endpoint' ? [own] : groupByFlow(own);
    for (const group of groups) {
      const title = granularity === 'endpoint' ? [name] : [name, group[0]?.hop.flow.id ?? ''];
      allowing.push(...policiesOf(context, home, peer.selector, title, group));
    }
  }
  const denying = zones.map((zone) => denialOf(model, zone));
  if (problems.length > 0) throw new FlowSetError(problems);
  return { objects: [...allowing.sort(byName), ...denying.sort(byName)], notes: context.notes.list() };
}

type IsolatedZone = Zone & { readonly namespace: string };

function chooseCluster({ name, zones }: Model, wanted: string | undefined): string {
  const clusters = [
    ...new Set([...zones.values()].filter(({ namespace }) => namespace !== undefined).map((zone) => zone.cluster)),
  ];
  if (wanted !== undefined && clusters.includes(wanted)) return wanted;
  if (wanted === undefined && clusters.length < 2) return clusters[0] ?? '';
  const message =
    wanted === undefined
      ? `the flow set is about several clusters, choose one of ${clusters.join(', ')}`
      : `there is no cluster ${wanted}`;
  throw new FlowSetError([{ place: name, message }]);
}

/** The sides that policies have to say, by the endpoint whose policy says it. */
function sidesOf({ model }: CompileContext, isolated: ReadonlyMap<string, IsolatedZone>): ReadonlyMap<string, readonly Side[]> {
  const sides = new Map<string, Side[]>();
  const add = (own: Endpoint, side: Side) => {
    if (own.peer.kind !== 'pods' || isolated.get(own.zone)?.isolate.includes(side.direction) !== true) return;
    const known = sides.get(own.name);
    if (known) known.push(side);
    else sides.set(own.name, [side]);
  };
  for (const hop of model.flows.flatMap((flow) => hopsOf(model, flow))) {
    add(hop.from, { hop, direction: 'egress', peer: hop.to });
    add(hop.to, { hop, direction: 'ingress', peer: hop.from });
  }
  return sides;
}

function groupByFlow(sides: readonly Side[]): (readonly Side[])[] {
  const groups = new Map<string, Side[]>();
  for (const side of sides) groups.set(side.hop.flow.id, [...(groups.get(side.hop.flow.id) ?? []), side]);
  return [...groups.values()];
}

function policiesOf(
  context: CompileContext,
  zone: IsolatedZone,
  selector: LabelSelector,
  title: readonly string[],
  sides: readonly Side[],
): PolicyObject[] {
  const rules = {
    egress: mergeRules(sides.filter(({ direction }) => direction === 'egress').flatMap((side) => ruleOf(context, side))),
    ingress: mergeRules(sides.filter(({ direction }) => direction === 'ingress').flatMap((side) => ruleOf(context, side))),
  };
  const directions = zone.isolate.filter((direction) => rules[direction].length > 0);
  const name = [context.model.name, ...title.map(policyPart)].join('.');
  const spec: NetworkPolicySpec = {
    podSelector: selector,
    policyTypes: policyTypes(zone.isolate),
    ...Object.fromEntries(directions.map((direction) => [direction, rules[direction].map(({ rule }) => rule)])),
  };
  const ids = Object.fromEntries(directions.map((direction) => [direction, rules[direction].map((rule) => rule.ids)]));
  const policies = [policy(context.model, 'NetworkPolicy', zone, name, spec, ids)];
  const cilium = ciliumRules(context, sides);
  if (cilium.length === 0) return policies;
  const ciliumSpec: CiliumPolicySpec = { endpointSelector: selector, egress: cilium.map(({ rule }) => rule) };
  return [
    ...policies,
    policy(context.model, 'CiliumNetworkPolicy', zone, name, ciliumSpec, { egress: cilium.map((rule) => rule.ids) }),
  ];
}

/** The rule of a side; none when another kind of policy says it, or when it cannot be said. */
function ruleOf(context: CompileContext, side: Side): TracedRule[] {
  const peers = peersOf(context, side);
  if (peers === undefined) return [];
  const { hop, direction } = side;
  context.notes.addHop(hop, side.peer);
  const ports = portsOf(hop);
  const field = direction === 'egress' ? 'to' : 'from';
  return [{ ids: [hop.flow.id], rule: peers === 'everybody' ? { ports } : { [field]: peers, ports } }];
}

function denialOf(model: Model, zone: IsolatedZone): PolicyObject {
  const spec = { podSelector: {}, policyTypes: policyTypes(zone.isolate) };
  const object = policy(model, 'NetworkPolicy', zone, `${model.name}.default-deny`, spec, {});
  return { ...object, metadata: { ...object.metadata, annotations: { ...WAVE, ...object.metadata.annotations } } };
}

function policyTypes(isolate: readonly Direction[]): ('Ingress' | 'Egress')[] {
  return isolate.map((direction) => (direction === 'ingress' ? 'Ingress' : 'Egress'));
}

function policy(
  model: Model,
  kind: PolicyObject['kind'],
  { namespace }: IsolatedZone,
  name: string,
  spec: PolicyObject['spec'],
  ids: Readonly<Record<string, readonly (readonly string[])[]>>,
): PolicyObject {
  const text = canonicalJson(spec as unknown as Value);
  return {
    apiVersion: kind === 'NetworkPolicy' ? 'networking.k8s.io/v1' : 'cilium.io/v2',
    kind,
    metadata: {
      annotations: { [FLOWS_ANNOTATION]: canonicalJson(ids as unknown as Value) },
      labels: { [FLOWSET_LABEL]: model.name, [HASH_LABEL]: sourceDigest(text).slice(0, 16) },
      name,
      namespace,
    },
    spec: JSON.parse(text),
  };
}

function byName(a: PolicyObject, b: PolicyObject): number {
  const [left, right] = [a, b].map(({ kind, metadata }) => `${metadata.namespace}/${metadata.name}/${kind}`) as [string, string];
  return left < right ? -1 : left > right ? 1 : 0;
}
