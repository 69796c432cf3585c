import { type Pod, podLabel } from '#flows/evaluate/cluster.ts';
import { portsOf } from '#flows/evaluate/explain.ts';
import type { Direction } from '#flows/model/model.ts';
import type { Cli } from '../cli.ts';
import { CliError } from '../failure.ts';
import type { Terminal } from '../terminal.ts';
import type { ClusterView } from './cluster-view.ts';

/** Pods on which the same policies act. */
interface Group {
  readonly pods: string[];
  readonly ingress: SideRules;
  readonly egress: SideRules;
}

/** One direction: open to everything, or to what rules admit. */
interface SideRules {
  /** Whether only what is admitted is open; policies of administrators alone do not isolate. */
  readonly isIsolated: boolean;
  readonly policies: readonly { readonly label: string; readonly place: string }[];
  readonly rules: readonly { readonly peers: string; readonly ports: string; readonly rule: string; readonly place: string }[];
}

/** Prints for all pods of a namespace which policies act on them and what these admit. Throws when the namespace is not known. */
export function explainNamespace({ terminal }: Cli, view: ClusterView, namespace: string, output: 'table' | 'json'): void {
  const { pods, namespaces } = view.evaluator.cluster;
  if (!namespaces.has(namespace)) throw new CliError('not_found', `nothing in the manifests is in a namespace ${namespace}`);
  const groups = new Map<string, Group>();
  for (const [index, pod] of pods.entries()) {
    if (pod.namespace.name !== namespace) continue;
    const [ingress, egress] = [sideOf(view, pod, index, 'ingress'), sideOf(view, pod, index, 'egress')];
    const key = JSON.stringify([ingress, egress]);
    const group = groups.get(key) ?? { pods: [], ingress, egress };
    groups.set(key, group);
    group.pods.push(podLabel(pod));
  }
  if (output === 'json') terminal.line(JSON.stringify({ groups: [...groups.values()] }, undefined, 2));
  else for (const group of groups.values()) printGroup(terminal, group);
}

function sideOf({ evaluator, placeText }: ClusterView, pod: Pod, index: number, direction: Direction): SideRules {
  const acting = evaluator.policies(pod, direction);
  const policies = [...acting.admin, ...acting.namespace, ...acting.baseline, ...acting.foreign];
  return {
    isIsolated: acting.namespace.length + acting.foreign.length > 0,
    policies: policies.map(({ label, place }) => ({ label, place: placeText(place) })),
    rules: policies.flatMap((policy) =>
      (policy[direction] ?? []).map((rule) => ({
        peers: rule.action === 'Allow' ? rule.peersText() : `${rule.action} ${rule.peersText()}`,
        // names of ports are those of the destination, which an egress rule does not say
        ports: direction === 'ingress' || rule.hasFixedPorts ? portsOf(rule, { kind: 'pod', pod, index }) : 'named ports',
        rule: rule.label,
        place: placeText(rule.place),
      })),
    ),
  };
}

function printGroup(terminal: Terminal, { pods, ingress, egress }: Group): void {
  terminal.line(pods.join(', '));
  for (const [name, word, side] of [
    ['ingress', 'from', ingress],
    ['egress', 'to', egress],
  ] as const) {
    const { policies, rules } = side;
    terminal.line(`  ${name}: ${verdict(side)}`);
    for (const { label, place } of rules.length === 0 ? policies : []) terminal.line(`    by ${label} at ${place}`);
    for (const { peers, ports, rule, place } of rules) terminal.line(`    ${word} ${peers}: ${ports} (${rule} at ${place})`);
  }
}

function verdict({ isIsolated, policies, rules }: SideRules): string {
  if (policies.length === 0) return 'everything, no policy acts on it';
  if (!isIsolated) return 'everything that no rule denies';
  return rules.length === 0 ? 'nothing' : 'only';
}
