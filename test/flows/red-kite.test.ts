import { describe, expect, it } from 'vitest';
import { compile, type PolicyObject } from '#flows/compile/compile.ts';
import { policyText } from '#flows/compile/policy-text.ts';
import { selectorKeys } from '#flows/evaluate/label-selector.ts';
import { lintModel } from '#flows/lint/model-lints.ts';
import type { Endpoint, Model, Protocol } from '#flows/model/model.ts';
import type { Value } from '#lib/object.ts';
import {
  cellsOf,
  documentsOf,
  evaluatorOf,
  exampleModel,
  examplePath,
  exampleText,
  isAllowed,
  nameOf,
  type TruthCell,
  truthCsv,
} from './flow-rig.ts';

const pods = [
  ...['ui', 'jobs-manager', 'cron', 'mongo', 'kafka', 'orchestrator'].map((name) => `stalker/${name}`),
  ...['stalker-jobs/job', 'kube-system/kube-dns', 'default/stray', 'elsewhere/foreign'],
];
const addresses = ['8.8.8.8', '169.254.169.254', '169.254.1.1', '10.1.2.3', '100.64.0.9', '172.16.5.5', '192.168.1.1'];
const ports: readonly (readonly [number, Protocol])[] = [
  [53, 'UDP'],
  ...[53, 22, 80, 443, 3000, 4200, 6443, 9092, 9093, 9094, 27017].map((port) => [port, 'TCP'] as const),
];
const cells = cellsOf(pods, addresses, ports);
/** Outside the table: where the facts of the example say that the API server is. */
const API = '203.0.113.10';
const apiCells = pods.flatMap((source) => ports.map(([port, protocol]) => ({ source, destination: API, protocol, port })));

/** The table of the documentation as it is read: what isolated pods may open to whom, and what they accept from anybody. */
const TABLE = {
  production: {
    opens: {
      'stalker/ui': ['dns', 'stalker/jobs-manager 3000'],
      'stalker/jobs-manager': ['dns', 'stalker/kafka 9092', 'stalker/mongo 27017'],
      'stalker/cron': ['dns', 'stalker/jobs-manager 3000', 'stalker/mongo 27017'],
      'stalker/mongo': ['stalker/mongo 27017'],
      'stalker/kafka': ['dns', 'stalker/kafka 9092', 'stalker/kafka 9093', 'stalker/kafka 9094'],
      'stalker/orchestrator': ['dns', 'api', 'stalker/kafka 9092'],
      'stalker-jobs/job': ['stalker/orchestrator 80', 'internet'],
      'default/stray': [],
    },
    accepts: ['stalker/ui 80', 'stalker/ui 443'],
  },
  development: {
    opens: {
      'stalker/ui': [],
      'stalker/jobs-manager': ['dns', 'stalker/kafka 9092', 'stalker/mongo 27017'],
      'stalker/cron': ['dns', 'stalker/jobs-manager 3000', 'stalker/mongo 27017'],
      'stalker/mongo': ['stalker/mongo 27017'],
      'stalker/kafka': ['dns', 'stalker/kafka 9092', 'stalker/kafka 9093', 'stalker/kafka 9094'],
      'stalker/orchestrator': ['dns', 'api', 'stalker/kafka 9092'],
      'stalker-jobs/job': ['stalker/orchestrator 80', 'internet'],
      'default/stray': [],
    },
    accepts: ['stalker/ui 4200', 'stalker/jobs-manager 3000', 'stalker/cron 3000', 'stalker/mongo 27017'],
  },
} as const;
type Profile = keyof typeof TABLE;

/** What the table says about one cell. */
function tableAllows(profile: Profile, { source, destination, protocol, port }: TruthCell): boolean {
  const { opens, accepts } = TABLE[profile];
  const opened: readonly string[] | undefined = opens[source as keyof typeof opens];
  const words = [
    ...(protocol === 'TCP' ? [`${destination} ${port}`] : []),
    ...(destination === 'kube-system/kube-dns' && port === 53 ? ['dns'] : []),
    ...(['8.8.8.8', '169.254.1.1', '100.64.0.9', API].includes(destination) ? ['internet'] : []),
    ...(destination === API && protocol === 'TCP' && (port === 443 || port === 6443) ? ['api'] : []),
  ];
  if (opened !== undefined && !words.some((word) => opened.includes(word))) return false;
  if (!(destination in opens)) return true;
  return opened !== undefined || (protocol === 'TCP' && (accepts as readonly string[]).includes(`${destination} ${port}`));
}

async function workloads(profile: Profile): Promise<Value[]> {
  const texts = await Promise.all(
    ['common.yaml', `ui.${profile}.yaml`].map((file) => exampleText('red-kite', 'workloads', file)),
  );
  return texts.flatMap(documentsOf);
}

/** Pods that only a selector that is too wide reaches: one more in each namespace, and each workload's labels in two other namespaces. */
function decoys(known: readonly Value[]): Value[] {
  const all = known as unknown as {
    metadata: { name: string; namespace: string };
    spec: { template: { metadata: { labels: object } } };
  }[];
  const pod = (name: string, namespace: string, labels: object) =>
    ({
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: { name, namespace },
      spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec: {} } },
    }) as Value;
  const namespaces = [...new Set(all.map(({ metadata }) => metadata.namespace))];
  return [
    ...namespaces.map((namespace) => pod('decoy', namespace, { decoy: 'yes' })),
    ...['twins', 'kube-system', 'stalker-jobs'].flatMap((namespace) =>
      all
        .filter(({ metadata }) => metadata.namespace !== namespace)
        .map(({ metadata, spec }) => pod(`${metadata.name}-twin`, namespace, spec.template.metadata.labels)),
    ),
  ];
}

describe.each(['production', 'development'] as const)('Red Kite in %s', (profile) => {
  it('has the truth table that its documentation states', async () => {
    expect(cells).toHaveLength(2_880);
    const csv = truthCsv(cells, (cell) => tableAllows(profile, cell));
    await expect(csv).toMatchFileSnapshot(examplePath('red-kite', `truth.${profile}.csv`));
    expect(csv.match(/,true$/gm)).toHaveLength({ production: 459, development: 474 }[profile]);
  });

  it('compiles to policies that agree with it in every cell', async () => {
    const { objects } = compile(await exampleModel('red-kite', { profiles: [profile] }));
    await expect(policyText(objects)).toMatchFileSnapshot(examplePath('red-kite', 'policies', `${profile}.yaml`));
    const evaluator = evaluatorOf(await workloads(profile), objects);
    const wrong = [...cells, ...apiCells].filter((cell) => isAllowed(evaluator, cell) !== tableAllows(profile, cell));
    expect(wrong).toEqual([]);
  });

  it('loses or gains a cell without any flow, and with any wider endpoint', async () => {
    const model = await exampleModel('red-kite', { profiles: [profile] });
    const tableOf = await wideTables(profile);
    const truth = tableOf(compile(model).objects);
    const mutants = [...withoutFlow(model), ...withWiderEndpoint(model)];
    const survivors = mutants.filter((mutant) => tableOf(compile(mutant.model).objects) === truth);
    expect(survivors.map(({ what }) => what)).toEqual([]);
    expect(mutants.length).toBeGreaterThanOrEqual(26);
  });

  it('loses or gains a cell of one end with any wider selector in a policy', async () => {
    // the other end would refuse what one selector too wide admits: each end is looked at alone
    const { objects } = compile(await exampleModel('red-kite', { profiles: [profile] }));
    const tableOf = await wideTables(profile);
    const endsOf = (policies: readonly PolicyObject[]) =>
      tableOf(oneEnd(policies, 'Egress')) + tableOf(oneEnd(policies, 'Ingress'));
    const truth = endsOf(objects);
    const mutants = widened(objects);
    const survivors = mutants.filter(({ policies }) => endsOf(policies) === truth);
    expect(survivors.map(({ what }) => what)).toEqual([]);
    expect(mutants.length).toBeGreaterThanOrEqual(40);
  });
});

/** All connections between all ends, decoys included, as text. */
async function wideTables(profile: Profile): Promise<(policies: readonly object[]) => string> {
  const known = await workloads(profile);
  const all = [...known, ...decoys(known)] as unknown as { metadata: { name: string; namespace: string } }[];
  const ends = [...all.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`), ...addresses, API];
  return (policies) => {
    const evaluator = evaluatorOf(all as unknown as Value[], policies);
    const between = evaluator.between('any-ip');
    const endpoints = ends.map((end) => evaluator.endpoint(nameOf(end)));
    const texts = endpoints.flatMap((source) =>
      endpoints.map((destination) => {
        const { allowed, undecidable } = between(source, destination);
        return JSON.stringify([evaluator.table.get(allowed), evaluator.table.get(undecidable)]);
      }),
    );
    return texts.join('\n');
  };
}

function withoutFlow(model: Model): { what: string; model: Model }[] {
  return model.flows.map(({ id }) => ({
    what: `without flow ${id}`,
    model: { ...model, flows: model.flows.filter((flow) => flow.id !== id) },
  }));
}

function withWiderEndpoint(model: Model): { what: string; model: Model }[] {
  const changed = (endpoint: Endpoint) => ({ ...model, endpoints: new Map([...model.endpoints, [endpoint.name, endpoint]]) });
  const dns = { ...model.facts.dns, selector: {} };
  return [
    ...[...model.endpoints.values()].flatMap((endpoint) => {
      const { name, peer } = endpoint;
      if (peer.kind === 'pods' && selectorKeys(peer.selector).length > 0)
        return [{ what: `${name} is every pod`, model: changed({ ...endpoint, peer: { ...peer, selector: {} } }) }];
      if (peer.kind !== 'addresses') return [];
      return peer.except.map((range) => ({
        what: `${name} with ${range}`,
        model: changed({ ...endpoint, peer: { ...peer, except: peer.except.filter((other) => other !== range) } }),
      }));
    }),
    { what: 'DNS is every pod of its namespace', model: { ...model, facts: { ...model.facts, dns } } },
  ];
}

function oneEnd(policies: readonly PolicyObject[], type: 'Ingress' | 'Egress'): object[] {
  const other = type === 'Ingress' ? 'egress' : 'ingress';
  return policies.map((policy) => ({ ...policy, spec: { ...policy.spec, policyTypes: [type], [other]: undefined } }));
}

describe('Jobs of Red Kite', () => {
  it('reach the Internet up to the borders of the four ranges, and nothing inside them (R-030)', async () => {
    const evaluator = evaluatorOf(await workloads('production'), compile(await exampleModel('red-kite')).objects);
    const reach = (destination: string) =>
      isAllowed(evaluator, { source: 'stalker-jobs/job', destination, protocol: 'TCP', port: 443 });
    const inside = [
      ...['10.0.0.0', '10.255.255.255', '172.16.0.0', '172.31.255.255', '192.168.0.0', '192.168.255.255', '169.254.169.254'],
    ];
    const outside = [
      ...['0.0.0.0', '9.255.255.255', '11.0.0.0', '172.15.255.255', '172.32.0.0', '192.167.255.255', '192.169.0.0'],
      ...['169.254.169.253', '169.254.169.255', '255.255.255.255'],
    ];
    expect(inside.filter(reach)).toEqual([]);
    expect(outside.filter((address) => !reach(address))).toEqual([]);
  });
});

describe('Red Kite in production under the overlay of development', () => {
  it.each([
    ['the overlay is compiled with it', ['production', 'development'], '', ''],
    [
      'a flow of development is declared for production too',
      ['production'],
      'profiles: [development] }',
      'profiles: [development, production] }',
    ],
    [
      'a flow of development loses its profile',
      ['production'],
      'purpose: debugging, profiles: [development]',
      'purpose: debugging',
    ],
    [
      'a flow of production is shared with development',
      ['production'],
      'profiles: [production]',
      'profiles: [production, development]',
    ],
  ])('is no compile when %s', async (_, profiles, from, to) => {
    const model = await exampleModel('red-kite', { profiles }, (text) => text.replaceAll(from, to));
    expect(() => compile(model)).toThrow(/^flows\.yaml:\d+:7: EXPOSURE-IN-PRODUCTION: flow [a-z-]+: world reaches /);
    expect(lintModel(model)).toContainEqual(expect.objectContaining({ lint: 'EXPOSURE-IN-PRODUCTION', severity: 'error' }));
  });

  it('leaves exactly the ways of R-027 and R-028 out of production', async () => {
    const cellsIn = (profile: Profile) =>
      cells.filter((cell) => tableAllows(profile, cell)).map((cell) => Object.values(cell).join(' '));
    const production = new Set(cellsIn('production'));
    const opened = cellsIn('development').filter((cell) => !production.has(cell));
    const destinations = new Set(opened.map((cell) => cell.split(' ').slice(1).join(' ')));
    expect([...destinations]).toEqual([
      'stalker/ui TCP 4200',
      'stalker/jobs-manager TCP 3000',
      'stalker/cron TCP 3000',
      'stalker/mongo TCP 27017',
    ]);
  });
});

interface Mutant {
  readonly what: string;
  readonly policies: readonly PolicyObject[];
}

/** The policies with one selector that selects everything, or one exception less. */
function widened(objects: readonly PolicyObject[]): Mutant[] {
  const mutants: Mutant[] = [];
  const visit = (value: unknown, path: readonly (string | number)[]) => {
    if (typeof value !== 'object' || value === null) return;
    for (const [key, child] of Object.entries(value)) {
      const at = [...path, key];
      const isSelector = key.endsWith('Selector') && Object.keys(child).length > 0;
      if (isSelector) mutants.push({ what: `${at.join('.')} selects all`, policies: withValue(objects, at, {}) });
      else if (key === 'except')
        for (const index of child.keys())
          mutants.push({
            what: `${at.join('.')} without ${child[index]}`,
            policies: withValue(objects, at, child.toSpliced(index, 1)),
          });
      else visit(child, at);
    }
  };
  visit(objects, []);
  return mutants;
}

function withValue(objects: readonly PolicyObject[], path: readonly (string | number)[], value: unknown): PolicyObject[] {
  const copy = structuredClone(objects) as unknown as Record<string | number, unknown>;
  const last = path.at(-1) ?? '';
  const holder = path
    .slice(0, -1)
    .reduce<Record<string | number, unknown>>((at, key) => at[key] as Record<string, unknown>, copy);
  holder[last] = value;
  return copy as unknown as PolicyObject[];
}
