import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { createEvaluator, type Evaluator, type EvaluatorOptions } from '#flows/evaluate/evaluator.ts';
import { readCluster } from '#flows/evaluate/read-cluster.ts';
import { loadFacts, resolveFacts } from '#flows/model/facts.ts';
import { loadFlowSet } from '#flows/model/load.ts';
import type { Model, Protocol } from '#flows/model/model.ts';
import { resolve, type Selection } from '#flows/model/resolve.ts';
import type { Value } from '#lib/object.ts';
import { parseStream } from '#lib/yaml.ts';

/** A day on which nothing of the examples has expired. */
export const TODAY = '2026-01-01';

/** The path of a file of an example. */
export function examplePath(...path: string[]): string {
  return fileURLToPath(new URL(`../../examples/${path.join('/')}`, import.meta.url));
}

/** The text of a file of an example. */
export function exampleText(...path: string[]): Promise<string> {
  return readFile(examplePath(...path), 'utf8');
}

/** The model of an example's flow set and facts; `edit` changes the text of the set first. */
export async function exampleModel(
  name: string,
  selection: Partial<Selection> = {},
  edit: (text: string) => string = (text) => text,
): Promise<Model> {
  const facts = resolveFacts({ facts: loadFacts(await exampleText(name, 'facts.yaml'), 'facts.yaml'), source: 'declared' });
  const set = loadFlowSet(edit(await exampleText(name, 'flows.yaml')), 'flows.yaml');
  return resolve(set, { today: TODAY, facts, ...selection });
}

/** The documents of a YAML text. */
export function documentsOf(text: string): Value[] {
  const { documents, problems } = parseStream(text);
  if (problems.length > 0) throw new Error(JSON.stringify(problems));
  return documents.map(({ value }) => value);
}

/** An evaluator over workloads and compiled policies; throws when they cannot be read. */
export function evaluatorOf(
  workloads: readonly Value[],
  policies: readonly object[],
  { ipBlockMode = 'any-ip', podCIDRs = ['10.244.0.0/16'] }: Partial<EvaluatorOptions> = {},
): Evaluator {
  const { cluster, problems } = readCluster([...workloads, ...(structuredClone(policies) as Value[])]);
  if (problems.length > 0) throw new Error(JSON.stringify(problems));
  return createEvaluator(cluster, { ipBlockMode, podCIDRs });
}

/** A connection as truth tables name it: `namespace/workload` or an address. */
export interface TruthCell {
  readonly source: string;
  readonly destination: string;
  readonly protocol: Protocol;
  readonly port: number;
}

/** Whether the policies allow a connection; throws when they do not decide it. */
export function isAllowed(evaluator: Evaluator, { source, destination, protocol, port }: TruthCell): boolean {
  const ends = { source: evaluator.endpoint(nameOf(source)), destination: evaluator.endpoint(nameOf(destination)) };
  const { verdict, reason } = evaluator.verdict({ ...ends, protocol, port });
  if (verdict === 'undecidable') throw new Error(`${source} to ${destination}: ${reason}`);
  return verdict === 'allowed';
}

/** `namespace/workload` or an address, as the evaluator names it. */
export function nameOf(text: string) {
  const [namespace = '', pod] = text.split('/');
  return pod === undefined ? { ip: text } : { namespace, pod };
}

/** Every connection between these ends with these ports; between addresses there are none. */
export function cellsOf(
  pods: readonly string[],
  addresses: readonly string[],
  ports: readonly (readonly [port: number, protocol: Protocol])[],
): TruthCell[] {
  const ends = [...pods, ...addresses];
  return ends.flatMap((source) =>
    ends
      .filter((destination) => source.includes('/') || destination.includes('/'))
      .flatMap((destination) => ports.map(([port, protocol]) => ({ source, destination, protocol, port }))),
  );
}

/** A truth table as CSV: source,destination,protocol,port,allowed. */
export function truthCsv(cells: readonly TruthCell[], isTrue: (cell: TruthCell) => boolean): string {
  const rows = cells.map((cell) => [cell.source, cell.destination, cell.protocol, cell.port, isTrue(cell)].join(','));
  return `source,destination,protocol,port,allowed\n${rows.join('\n')}\n`;
}
