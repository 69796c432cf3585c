import type { Service } from '#flows/evaluate/cluster.ts';
import type { PodEndpoint } from '#flows/evaluate/endpoint.ts';
import { isEmptySelector, selects } from '#flows/evaluate/label-selector.ts';
import { isSamePod } from '#flows/evaluate/verdict.ts';
import type { Direction, Protocol } from '#flows/model/model.ts';
import { ALL } from '#flows/sets/connection-table.ts';
import { hasPort, intersectConnections, isEmpty } from '#flows/sets/connections.ts';
import { type LintContext, type LintedRule, peerPlace, podsOfPeer, podText } from './policy-context.ts';
import type { OpenFinding } from './policy-lints.ts';

/** Port of DNS, and the one on which the DNS pods of OpenShift listen. */
const DNS_PORTS = [53, 5353];

/** Lints over what policies amount to together. */
export function reachLints(context: LintContext): OpenFinding[] {
  return [
    ...context.rules.flatMap((rule) => halfOpen(context, rule)),
    ...context.rules.flatMap((rule) => dnsUdpOnly(context, rule)),
    ...dnsMissing(context),
    ...context.rules.flatMap((rule) => servicePorts(context, rule)),
    ...withoutFlow(context),
  ];
}

/** A pod that a rule names, and of whose ports in the rule not one is open to or from any pod that the policy selects. */
function halfOpen({ evaluator, pods }: LintContext, rule: LintedRule): OpenFinding[] {
  const between = evaluator.between(evaluator.ipBlockMode);
  const isOpen = (subject: PodEndpoint, peer: PodEndpoint) => {
    const [source, destination] = rule.direction === 'egress' ? [subject, peer] : [peer, subject];
    const { allowed, undecidable } = between(source, destination);
    if (undecidable !== 0 || allowed === ALL || isSamePod(source, destination)) return true;
    return !isEmpty(intersectConnections(evaluator.table.get(allowed), rule.acting.ports(destination)));
  };
  return rule.written.peers.flatMap((peer, index) => {
    if (!peer.podSelector || isEmptySelector(peer.podSelector) || rule.of.pods.length === 0) return [];
    const closed = podsOfPeer(rule, peer, pods).find((other) => !rule.of.pods.some((subject) => isOpen(subject, other)));
    if (!closed) return [];
    const other = podText(closed.pod);
    const message =
      rule.direction === 'egress'
        ? `egress to ${other}, whose ingress does not admit it`
        : `ingress from ${other}, whose egress does not let it out`;
    return [{ lint: 'HALF-OPEN', subject: rule.label, place: peerPlace(rule, index), message }];
  });
}

function hasDns(rule: LintedRule, protocol: Protocol): boolean {
  const ports = rule.acting.ports({ kind: 'addresses', addresses: [] });
  return rule.direction === 'egress' && DNS_PORTS.some((port) => hasPort(ports, protocol, port));
}

function isDnsOnly({ direction, written }: LintedRule): boolean {
  const { ports } = written;
  return direction === 'egress' && ports.length > 0 && ports.every(({ port }) => DNS_PORTS.some((each) => each === port));
}

/** Rules that act on a pod in a direction. */
function rulesOn({ policies }: LintContext, pod: PodEndpoint, direction: Direction): LintedRule[] {
  return policies
    .filter(({ pods }) => pods.includes(pod))
    .flatMap(({ rules }) => rules.filter((rule) => rule.direction === direction));
}

/** Looked at for each pod, for another policy may add TCP; for the policy alone when it selects none. */
function dnsUdpOnly(context: LintContext, rule: LintedRule): OpenFinding[] {
  const isDns = rule.written.ports.length > 0 && hasDns(rule, 'UDP') && !hasDns(rule, 'TCP');
  if (!isDns || rule.of.rules.some((other) => hasDns(other, 'TCP'))) return [];
  const { pods } = rule.of;
  if (pods.length > 0 && pods.every((pod) => rulesOn(context, pod, 'egress').some((other) => hasDns(other, 'TCP')))) return [];
  const message = 'DNS over UDP alone: answers beyond 512 bytes may need TCP 53 (RFC 7766)';
  return [{ lint: 'DNS-UDP-ONLY', subject: rule.label, place: { ...rule.place, path: `${rule.place.path}/ports` }, message }];
}

/** Pods that may open something and not look up its name; a pod that may open nothing needs no names. */
function dnsMissing(context: LintContext): OpenFinding[] {
  return context.pods.flatMap((pod) => {
    const rules = rulesOn(context, pod, 'egress');
    if (rules.length === 0 || rules.some((rule) => hasDns(rule, 'UDP') || hasDns(rule, 'TCP'))) return [];
    const message = 'its egress is isolated and no rule lets it reach DNS on port 53';
    return [{ lint: 'DNS-MISSING', subject: podText(pod.pod), place: pod.pod.place, message }];
  });
}

/** Numbers in a rule that are the port of a Service in front of the destination, which listens on another. */
function servicePorts({ cluster, pods }: LintContext, rule: LintedRule): OpenFinding[] {
  const destinations =
    rule.direction === 'ingress' ? rule.of.pods : rule.written.peers.flatMap((peer) => podsOfPeer(rule, peer, pods));
  for (const [index, { port, endPort, protocol }] of rule.written.ports.entries()) {
    if (typeof port !== 'number' || endPort !== undefined) continue;
    for (const { pod } of destinations) {
      if (pod.ports.some((own) => own.port === port && own.protocol === protocol)) continue;
      for (const service of cluster.services) {
        const target = targetOf(service, { namespace: pod.namespace.name, labels: pod.labels }, protocol, port);
        const number = typeof target === 'string' ? pod.ports.find(({ name }) => name === target)?.port : target;
        if (number === undefined || number === port || holds(rule, pod.ports, number)) continue;
        const message = `${port} is the port of Service ${service.namespace}/${service.name}; ${podText(pod)} listens on ${number}, and policies act there`;
        return [
          {
            lint: 'SERVICE-PORT',
            subject: rule.label,
            place: { ...rule.place, path: `${rule.place.path}/ports/${index}` },
            message,
          },
        ];
      }
    }
  }
  return [];
}

function targetOf(
  { namespace, selector, ports }: Service,
  pod: { readonly namespace: string; readonly labels: Readonly<Record<string, string>> },
  protocol: Protocol,
  port: number,
): number | string | undefined {
  if (namespace !== pod.namespace || !selector || !selects({ matchLabels: selector }, pod.labels)) return undefined;
  return ports.find((each) => each.port === port && each.protocol === protocol)?.targetPort;
}

/** Whether the rule has the port on which the pod listens as well. */
function holds({ written }: LintedRule, own: PodEndpoint['pod']['ports'], target: number): boolean {
  return written.ports.some(
    ({ port, endPort = port }) =>
      (typeof port === 'number' && typeof endPort === 'number' && port <= target && target <= endPort) ||
      own.some(({ name, port: number }) => name === port && number === target),
  );
}

/** Pods that policies isolate and that no rule is about, rules for DNS aside. */
function withoutFlow(context: LintContext): OpenFinding[] {
  const { pods, policies, rules } = context;
  const named = new Set(
    rules.flatMap((rule) =>
      rule.written.peers
        .filter(({ podSelector }) => podSelector && !isEmptySelector(podSelector))
        .flatMap((peer) => podsOfPeer(rule, peer, pods)),
    ),
  );
  return pods.flatMap((pod) => {
    const isolating = policies.filter((policy) => policy.pods.includes(pod));
    const hasRule = isolating.some((policy) => policy.rules.some((rule) => !isDnsOnly(rule)));
    if (isolating.length === 0 || hasRule || named.has(pod)) return [];
    const message = `${isolating.map(({ label }) => label).join(', ')} isolates it and no rule names it`;
    return [{ lint: 'WORKLOAD-WITHOUT-FLOW', subject: podText(pod.pod), place: pod.pod.place, message }];
  });
}
