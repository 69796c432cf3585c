import { readFile } from 'node:fs/promises';
import { text as readAll } from 'node:stream/consumers';
import type { EndpointName } from '#flows/evaluate/endpoint.ts';
import { isPort } from '#flows/evaluate/network-policy.ts';
import { PROTOCOLS } from '#flows/model/model.ts';
import { errorText } from '#lib/errors.ts';
import { isMapping, type Value, type ValueObject } from '#lib/object.ts';
import { HARD_LIMITS, parseStream } from '#lib/yaml.ts';
import { offsetsOf } from '#lib/yaml-places.ts';
import { LineIndex } from '#lib/yaml-problems.ts';
import type { Cli } from '../cli.ts';
import { CliError, usageError } from '../failure.ts';
import { type ClusterOptions, type ClusterView, readClusterView } from './cluster-view.ts';

/** Options of `brokkr flows evaluate`. */
export interface EvaluateOptions extends ClusterOptions {
  readonly cells: string;
  readonly output: 'table' | 'json';
}

/** `brokkr flows evaluate`: the list of cells, each with its verdict. */
export async function evaluate(cli: Cli, options: EvaluateOptions, stdin: NodeJS.ReadableStream): Promise<void> {
  if (options.cells === '-' && options.filename.includes('-')) throw usageError('stdin can be read once: -f - or --cells -');
  const view = await readClusterView(options, stdin);
  const cells = await readCells(options.cells, stdin);
  const judged = cells.map(({ cell, place }) => ({ ...cell, ...judge(view, cell, place) }));
  if (options.output === 'json') return cli.terminal.line(JSON.stringify(judged, undefined, 2));
  for (const { src, dst, protocol, port, verdict, reason, cniDependent } of judged as readonly ValueObject[]) {
    const colour = verdict === 'allowed' ? 'green' : verdict === 'denied' ? 'red' : 'yellow';
    const marks = cniDependent === true ? ' (CNI-DEPENDENT)' : '';
    const ends = `${endText(src)} → ${endText(dst)} ${String(protocol)} ${String(port)}`;
    cli.terminal.line(`${cli.terminal.paint(colour, String(verdict).padEnd(11))} ${ends}: ${String(reason)}${marks}`);
  }
}

interface PlacedCell {
  readonly cell: ValueObject;
  /** `cells.json:12:3`. */
  readonly place: string;
}

/** Cells keep every field they came with. */
async function readCells(path: string, stdin: NodeJS.ReadableStream): Promise<PlacedCell[]> {
  const text = path === '-' ? await readAll(stdin) : await readFile(path, 'utf8').catch((error: unknown) => notRead(path, error));
  const { documents, problems } = parseStream(text, { limits: HARD_LIMITS });
  const [problem] = problems;
  if (problem) throw new CliError('invalid_cells', `${path}:${problem.line ?? 1}:${problem.column ?? 1}: ${problem.message}`);
  const [document] = documents;
  if (!document || documents.length > 1 || !Array.isArray(document.value))
    throw new CliError('invalid_cells', `${path}: must hold one list of cells`);
  const [lines, offset] = [new LineIndex(text), offsetsOf(document.text)];
  return document.value.map((cell, index) => {
    const { line, column } = lines.at(document.offset + offset(`/${index}`));
    const place = `${path}:${line}:${column}`;
    if (!isMapping(cell)) throw wrong(place, 'a cell is a mapping with src, dst, protocol and port');
    return { cell, place };
  });
}

function judge({ evaluator }: ClusterView, { src, dst, protocol: name, port }: ValueObject, place: string): ValueObject {
  const protocol = PROTOCOLS.find((each) => each === (name ?? 'TCP'));
  if (!protocol) throw wrong(place, `protocol must be ${PROTOCOLS.join(', ')}`);
  if (typeof port !== 'number' || !Number.isInteger(port) || !isPort(port))
    throw wrong(place, 'port must be between 1 and 65535');
  const find = (end: Value | undefined, field: string) => {
    try {
      return evaluator.endpoint(endName(end, field));
    } catch (error) {
      throw wrong(place, errorText(error));
    }
  };
  const { verdict, reason, cniDependent } = evaluator.verdict({
    source: find(src, 'src'),
    destination: find(dst, 'dst'),
    protocol,
    port,
  });
  return { verdict, reason, ...(cniDependent ? { cniDependent } : {}) };
}

function endName(end: Value | undefined, field: string): EndpointName {
  const { ip, namespace, pod } = isMapping(end) ? end : {};
  if (typeof ip === 'string') return { ip };
  if (typeof namespace === 'string' && typeof pod === 'string') return { namespace, pod };
  throw new Error(`${field} must be {"namespace", "pod"} or {"ip"}`);
}

function endText(end: Value | undefined): string {
  const { ip, namespace, pod } = isMapping(end) ? end : {};
  return ip === undefined ? `${String(namespace)}/${String(pod)}` : String(ip);
}

function wrong(place: string, message: string): CliError {
  return new CliError('invalid_cells', `${place}: ${message}`);
}

function notRead(path: string, error: unknown): never {
  throw new CliError('file_not_found', `${path}: ${errorText(error)}`, { cause: error });
}
