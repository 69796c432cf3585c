import { describe, expect, it } from 'vitest';
import { compile } from '#flows/compile/compile.ts';
import { ipBlockModeOf } from '#flows/evaluate/evaluator.ts';
import { type ModelNode, modelAllows } from '#flows/model/allows.ts';
import { FlowSetError } from '#flows/model/document.ts';
import { loadFlowSet } from '#flows/model/load.ts';
import { type Model, PROTOCOLS } from '#flows/model/model.ts';
import { resolve } from '#flows/model/resolve.ts';
import { contains } from '#flows/sets/intervals.ts';
import { createRandom } from '../soak/random.ts';
import { evaluatorOf, nameOf, TODAY } from './flow-rig.ts';
import { ADDRESSES, CELL_PORTS, clusterPods, randomFacts, randomFlowSet } from './random-flow-set.ts';

const pods = clusterPods();
const podNodes = (
  pods as unknown as {
    metadata: { name: string; namespace: string; labels: Record<string, string> };
    status: { podIPs: { ip: string }[] };
  }[]
).map(({ metadata: { name, namespace, labels }, status }) => ({
  name: `${namespace}/${name}`,
  node: {
    kind: 'pod',
    namespace,
    namespaceLabels: { 'kubernetes.io/metadata.name': namespace },
    labels,
    ip: status.podIPs[0]?.ip,
  } satisfies ModelNode,
}));
const nodes: readonly { name: string; node: ModelNode }[] = [
  ...podNodes,
  ...ADDRESSES.map((ip) => ({ name: ip, node: { kind: 'address', ip } as const })),
];

/** Flow sets for each network plugin; each is compiled for two profiles. */
const SEEDS = 8;

/** Connections about which policies and model differ. */
function differences(model: Model, granularity: 'endpoint' | 'flow'): string[] {
  const { objects } = compile(model, { granularity });
  const mode = ipBlockModeOf(model.facts.cni);
  // names and the API server's identity are Cilium's own matter; the model's reference knows addresses only
  const evaluator = evaluatorOf(
    pods,
    objects.filter(({ kind }) => kind === 'NetworkPolicy'),
    { ipBlockMode: mode },
  );
  const between = evaluator.between(mode);
  const wrong: string[] = [];
  for (const src of nodes) {
    for (const dst of nodes) {
      if (src === dst || (src.node.kind === 'address' && dst.node.kind === 'address')) continue;
      const { allowed, undecidable } = between(evaluator.endpoint(nameOf(src.name)), evaluator.endpoint(nameOf(dst.name)));
      const [yes, maybe] = [evaluator.table.get(allowed), evaluator.table.get(undecidable)];
      if (PROTOCOLS.some((protocol) => maybe[protocol].length > 0)) wrong.push(`${src.name} to ${dst.name} is undecidable`);
      for (const [protocol, port] of CELL_PORTS) {
        const policies = contains(yes[protocol], port);
        if (policies !== modelAllows(model, { src: src.node, dst: dst.node }, protocol, port))
          wrong.push(
            `${src.name} to ${dst.name} ${protocol} ${port}: ${policies ? 'allowed by policies only' : 'allowed by the model only'}`,
          );
      }
    }
  }
  return wrong;
}

describe.each(['generic', 'calico', 'cilium', 'aws', 'ovn'] as const)('with %s', (cni) => {
  it('compiles random flow sets to policies that allow what the model means, in every profile', () => {
    const refused: string[] = [];
    let compiled = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = createRandom(seed * 1_000 + cni.length);
      const text = randomFlowSet(random);
      const facts = { ...randomFacts(random), cni };
      for (const profiles of [['staging'], ['development']]) {
        try {
          const model = resolve(loadFlowSet(text, 'random.yaml'), { profiles, today: TODAY, facts });
          const granularity = random.pick(['endpoint', 'flow'] as const);
          expect(differences(model, granularity), `seed ${seed}, ${profiles}, ${granularity}\n${text}`).toEqual([]);
          compiled++;
        } catch (error) {
          if (!(error instanceof FlowSetError)) throw error;
          refused.push(`seed ${seed}: ${error.message}`);
        }
      }
    }
    // what is refused has no address of the cluster's families
    expect(compiled, refused.join('\n')).toBeGreaterThan(SEEDS);
  });
});
