import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { EndpointName } from '../../flows/evaluate/endpoint.ts';
import { createEvaluator } from '../../flows/evaluate/evaluator.ts';
import { type ClusterReading, readCluster } from '../../flows/evaluate/read-cluster.ts';
import { IP_BLOCK_MODES } from '../../flows/evaluate/rules.ts';
import { lintPolicies } from '../../flows/lint/policy-lints.ts';
import { resolveFacts } from '../../flows/model/facts.ts';
import type { Protocol } from '../../flows/model/model.ts';
import { parseStream } from '../../lib/yaml.ts';

type CaseEnd = { readonly ns: string; readonly pod: string } | { readonly ip: string };

/** A truth table as it is recorded; a cell that names a mode has another verdict in it. */
interface Expected {
  readonly mode: 'any-ip' | 'external-only' | 'both';
  readonly cells: readonly {
    readonly src: CaseEnd;
    readonly dst: CaseEnd;
    readonly protocol: Protocol;
    readonly port: number;
    readonly allowed: boolean;
    readonly any_ip?: boolean;
    readonly external_only?: boolean;
  }[];
}

const root = findTables();
const cases =
  root === undefined
    ? []
    : readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('expected.json'));

/** The truth tables of others lie beside the project, not in it: `../shared/netpol`, or where BROKKR_NETPOL says. */
function findTables(): string | undefined {
  const named = process.env.BROKKR_NETPOL;
  if (named !== undefined) return named;
  for (let dir = process.cwd(); dirname(dir) !== dir; dir = dirname(dir)) {
    const tables = join(dirname(dir), 'shared', 'netpol');
    if (existsSync(tables)) return tables;
  }
  return undefined;
}

function clusterOf(resources: string): ClusterReading {
  const texts = readdirSync(resources).map((name) => readFileSync(join(resources, name), 'utf8'));
  return readCluster(texts.flatMap((text) => parseStream(text).documents.map(({ value }) => value)));
}

function nameOf(end: CaseEnd): EndpointName {
  return 'ip' in end ? end : { namespace: end.ns, pod: end.pod };
}

describe('the recorded truth tables', () => {
  it('are all there, or it is said that they are not', () => {
    if (root === undefined) process.stderr.write('conformance: no ../shared/netpol beside the project, nothing is compared\n');
    // README of the tables: 58 cases of Kubernetes, 15 recipes, Verrazzano
    else expect(cases.length).toBeGreaterThanOrEqual(74);
  });

  it.each(cases)('%s', (path) => {
    const file = join(root ?? '', path);
    const { cluster, problems } = clusterOf(join(dirname(file), 'resources'));
    expect(problems).toEqual([]);
    const expected = JSON.parse(readFileSync(file, 'utf8')) as Expected;
    expect(expected.cells.length).toBeGreaterThan(0);
    for (const mode of IP_BLOCK_MODES) {
      if (expected.mode !== 'both' && expected.mode !== mode && !JSON.stringify(expected.cells).includes(mode.replace('-', '_')))
        continue;
      const evaluator = createEvaluator(cluster, { ipBlockMode: mode });
      const wrong = expected.cells.filter((cell) => {
        const wanted = cell[mode === 'any-ip' ? 'any_ip' : 'external_only'] ?? cell.allowed;
        const { verdict } = evaluator.verdict({
          source: evaluator.endpoint(nameOf(cell.src)),
          destination: evaluator.endpoint(nameOf(cell.dst)),
          protocol: cell.protocol,
          port: cell.port,
        });
        return verdict !== (wanted ? 'allowed' : 'denied');
      });
      expect(wrong).toEqual([]);
    }
  });

  it('of Verrazzano have the mistakes that were counted in its chart', () => {
    if (root === undefined) return expect(cases).toEqual([]);
    const { cluster } = clusterOf(join(root, 'verrazzano', 'all-components', 'resources'));
    const findings = lintPolicies(createEvaluator(cluster, { ipBlockMode: 'any-ip' }), resolveFacts(), []);
    const count = (id: string) => findings.filter(({ lint }) => lint === id).length;
    expect({ 'OR-SPLIT': count('OR-SPLIT'), 'OPEN-SOURCE': count('OPEN-SOURCE') }).toEqual({ 'OR-SPLIT': 5, 'OPEN-SOURCE': 14 });
  });
});
