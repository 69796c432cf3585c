import type { Place } from '#flows/evaluate/cluster.ts';
import { createEvaluator, type Evaluator, ipBlockModeOf } from '#flows/evaluate/evaluator.ts';
import { readCluster } from '#flows/evaluate/read-cluster.ts';
import type { IpBlockMode } from '#flows/evaluate/rules.ts';
import { ASSUMED_POD_CIDRS } from '#flows/model/facts.ts';
import type { Facts } from '#flows/model/model.ts';
import { parseCidr } from '#flows/sets/addresses.ts';
import { HARD_LIMITS, parseStream } from '#lib/yaml.ts';
import { offsetsOf } from '#lib/yaml-places.ts';
import { hasErrors, LineIndex } from '#lib/yaml-problems.ts';
import { CliError, usageError } from '../failure.ts';
import { type Manifests, placeText, readManifests } from '../manifests.ts';
import { problemLine } from '../problems.ts';

/** Options of every command that evaluates manifests. */
export interface ClusterOptions {
  readonly filename: readonly string[];
  readonly recursive?: boolean;
  readonly cni: Facts['cni'];
  readonly ipBlockMode?: IpBlockMode;
  readonly podCidr?: readonly string[];
}

/** A cluster as manifests describe it. */
export interface ClusterView {
  readonly evaluator: Evaluator;
  /** `file:line:column`. */
  readonly placeText: (place: Place) => string;
}

/** Problems that one message lists. */
const MAX_LISTED = 100;

/** Reads manifests for evaluation. Throws with every place that cannot be used. */
export async function readClusterView(options: ClusterOptions, stdin: NodeJS.ReadableStream): Promise<ClusterView> {
  const manifests = await readManifests({ paths: options.filename, recursive: options.recursive === true, stdin });
  return clusterView(manifests, options);
}

/** The view of manifests that have been read. */
export function clusterView(manifests: Manifests, { cni, ipBlockMode, podCidr }: Omit<ClusterOptions, 'filename'>): ClusterView {
  const wrong = podCidr?.find((cidr) => !parseCidr(cidr));
  if (wrong !== undefined) throw usageError(`--pod-cidr ${wrong} is no CIDR`);
  const { documents, problems: unreadable } = parseStream(manifests.text, { limits: HARD_LIMITS });
  if (hasErrors(unreadable)) {
    throw listed(
      'invalid_yaml',
      unreadable.filter(({ severity }) => severity === 'error').map((each) => problemLine(manifests, each)),
    );
  }
  const lines = new LineIndex(manifests.text);
  const offsets = new Map<number, (pointer: string) => number>();
  const textOf = ({ document, path }: Place): string => {
    const { text = '', offset = 0 } = documents[document] ?? {};
    const find = offsets.get(document) ?? offsetsOf(text);
    offsets.set(document, find);
    return placeText(manifests, lines.at(offset + find(path)));
  };
  const { cluster, problems } = readCluster(documents.map(({ value }) => value));
  if (problems.length > 0) {
    throw listed(
      'invalid_manifests',
      problems.map((problem) => `${textOf(problem)}: ${problem.message}${problem.object === '' ? '' : `, in ${problem.object}`}`),
    );
  }
  const evaluator = createEvaluator(cluster, {
    ipBlockMode: ipBlockMode ?? ipBlockModeOf(cni),
    podCIDRs: podCidr ?? ASSUMED_POD_CIDRS,
  });
  return { evaluator, placeText: textOf };
}

function listed(code: string, lines: readonly string[]): CliError {
  const more = lines.length > MAX_LISTED ? [`  and ${lines.length - MAX_LISTED} more`] : [];
  const shown = lines.slice(0, MAX_LISTED).map((line) => `  ${line}`);
  const head = `${lines.length} problem${lines.length === 1 ? '' : 's'} in the manifests`;
  return new CliError(code, [head, ...shown, ...more].join('\n'));
}
