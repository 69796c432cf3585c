import { PROTOCOLS, type Protocol } from '#flows/model/model.ts';
import { portsText } from '#flows/sets/connections.ts';
import { union } from '#flows/sets/intervals.ts';
import { type EndpointName, parseEndpointName } from './endpoint.ts';
import type { Evaluator } from './evaluator.ts';
import { isPort } from './network-policy.ts';
import type { Outcome } from './verdict.ts';

/** First line of a truth table. */
export const TRUTH_COLUMNS = 'source,destination,protocol,port,allowed';

/** Rows of one truth table. */
const MAX_TRUTH_ROWS = 2_000_000;

/** One row: what is expected of one cell. */
export interface ExpectedCell {
  /** 1-based line of the file. */
  readonly line: number;
  readonly source: EndpointName;
  readonly destination: EndpointName;
  readonly protocol: Protocol;
  readonly port: number;
  readonly allowed: boolean;
}

/** Cells that differ from a truth table, joined over ports. */
export interface TruthDifference {
  /** Line of the first of them. */
  readonly line: number;
  readonly source: string;
  readonly destination: string;
  readonly protocol: Protocol;
  readonly ports: string;
  readonly expected: 'allowed' | 'denied';
  readonly verdict: Outcome;
  /** Of the first of them. */
  readonly reason: string;
}

/** What a comparison with a truth table found. */
export interface TruthReport {
  readonly cells: number;
  readonly differing: number;
  /** Cells on which the ways to read `ipBlock` disagree. */
  readonly cniDependent: number;
  readonly differences: readonly TruthDifference[];
}

/**
 * Reads a truth table: CSV with the columns of `TRUTH_COLUMNS` and no quotes; a source or destination is `namespace/pod` (or workload) or
 * an address; `allowed` is `true` or `false`. Throws with the line that is wrong.
 */
export function parseTruth(text: string): ExpectedCell[] {
  const lines = text.split(/\r?\n/);
  if (lines[0] !== TRUTH_COLUMNS) throw new Error(`line 1: the columns must be ${TRUTH_COLUMNS}`);
  if (lines.length > MAX_TRUTH_ROWS) throw new Error(`there are ${lines.length} lines, the limit is ${MAX_TRUTH_ROWS}`);
  const cells: ExpectedCell[] = [];
  for (const [index, row] of lines.entries()) {
    if (index > 0 && row !== '') cells.push(parseRow(row, index + 1));
  }
  return cells;
}

function parseRow(row: string, line: number): ExpectedCell {
  const [from = '', to = '', protocolText = '', portText = '', allowed = '', ...more] = row.split(',');
  const wrong = (what: string) => new Error(`line ${line}: ${what}`);
  const [source, destination] = [parseEndpointName(from), parseEndpointName(to)];
  if (more.length > 0) throw wrong(`more than the columns ${TRUTH_COLUMNS}`);
  if (!source) throw wrong(`source ${JSON.stringify(from)} is neither namespace/pod nor an address`);
  if (!destination) throw wrong(`destination ${JSON.stringify(to)} is neither namespace/pod nor an address`);
  const protocol = PROTOCOLS.find((each) => each === protocolText);
  if (!protocol) throw wrong(`protocol ${JSON.stringify(protocolText)} is not one of ${PROTOCOLS.join(', ')}`);
  const port = Number(portText);
  if (!/^[0-9]+$/.test(portText) || !isPort(port)) throw wrong(`port ${JSON.stringify(portText)} is not between 1 and 65535`);
  if (allowed !== 'true' && allowed !== 'false') throw wrong(`allowed ${JSON.stringify(allowed)} is neither true nor false`);
  return { line, source, destination, protocol, port, allowed: allowed === 'true' };
}

/** Judges every cell of a truth table. An undecidable cell differs from both. Throws when a cell names a pod that is not there. */
export function compareWithTruth(evaluator: Evaluator, expected: readonly ExpectedCell[]): TruthReport {
  const groups = new Map<string, TruthDifference & { set: readonly number[] }>();
  let [differing, cniDependent] = [0, 0];
  for (const { line, source, destination, protocol, port, allowed } of expected) {
    const cell = { source: found(evaluator, source, line), destination: found(evaluator, destination, line), protocol, port };
    const verdict = evaluator.verdict(cell);
    if (verdict.cniDependent) cniDependent++;
    const wanted = allowed ? 'allowed' : 'denied';
    if (verdict.verdict === wanted) continue;
    differing++;
    const [from, to] = [nameText(source), nameText(destination)];
    const key = [from, to, protocol, wanted, verdict.verdict].join();
    const before = groups.get(key);
    const first = before ?? {
      ...{ line, source: from, destination: to, protocol, ports: '', expected: wanted },
      ...{ verdict: verdict.verdict, reason: verdict.reason },
    };
    groups.set(key, { ...first, set: union(before?.set ?? [], [port, port + 1]) });
  }
  const differences = [...groups.values()].map(({ set, ...difference }) => ({ ...difference, ports: portsText(set) }));
  return { cells: expected.length, differing, cniDependent, differences };
}

function found(evaluator: Evaluator, name: EndpointName, line: number): ReturnType<Evaluator['endpoint']> {
  try {
    return evaluator.endpoint(name);
  } catch (error) {
    throw new Error(`line ${line}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

function nameText(name: EndpointName): string {
  return 'ip' in name ? name.ip : `${name.namespace}/${name.pod}`;
}
