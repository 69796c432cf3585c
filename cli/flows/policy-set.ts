import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { compile } from '#flows/compile/compile.ts';
import { policyText } from '#flows/compile/policy-text.ts';
import type { Cli } from '../cli.ts';
import { CliError } from '../failure.ts';
import { readManifests } from '../manifests.ts';
import { type ClusterOptions, type ClusterView, clusterView } from './cluster-view.ts';
import { type ModelOptions, readModel, told } from './model-source.ts';

/** Options of commands that take a policy set as manifests or as a flow set. */
export type PolicySetOptions = Omit<ClusterOptions, 'filename'> &
  Omit<ModelOptions, 'filename'> & { readonly filename?: readonly string[] };

/**
 * The cluster under a policy set: manifests, or what a flow set compiles to, together with the manifests of `-f`. A folder with a
 * `flows.yaml` is a flow set; without `-f` the workloads are those of its folder `workloads`, where `name.PROFILE.yaml` is for one profile.
 */
export async function readPolicySet(
  cli: Cli,
  path: string,
  options: PolicySetOptions,
  stdin: NodeJS.ReadableStream,
): Promise<ClusterView> {
  const recursive = options.recursive === true;
  const { filename = [] } = options;
  if (!(await isFlowSet(path))) {
    return clusterView(await readManifests({ paths: [path, ...filename], recursive, stdin }), options);
  }
  const model = await readModel(cli, { ...options, filename: path });
  const { objects } = await told(async () => compile(model, { granularity: 'endpoint', allowBroad: false }));
  const paths = filename.length > 0 ? filename : await workloadFiles(join(path, 'workloads'), model.profiles);
  const before = [{ path: `${path} compiled`, text: policyText(objects) }];
  const manifests = await readManifests({ paths, recursive, stdin, before });
  return clusterView(manifests, { ...options, cni: model.facts.cni, podCidr: options.podCidr ?? model.facts.podCIDRs });
}

/** Files of a folder, without those that are for other profiles. */
async function workloadFiles(folder: string, profiles: readonly string[]): Promise<string[]> {
  const found = await readdir(folder).catch((error: unknown) => {
    throw new CliError('file_not_found', `${folder}: no such folder`, { hint: 'name the workloads with -f', cause: error });
  });
  const names = found.filter((name) => /\.ya?ml$/.test(name)).sort();
  const isOurs = (name: string) => {
    const [, profile] = /\.([^.]+)\.ya?ml$/.exec(name) ?? [];
    return profile === undefined || profiles.includes(profile);
  };
  return names.filter(isOurs).map((name) => join(folder, name));
}

/** Whether it is a flow set: a folder with a `flows.yaml`, or a file with a document of kind FlowSet. */
export async function isFlowSet(path: string): Promise<boolean> {
  if (path === '-') return false;
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) return (await stat(join(path, 'flows.yaml')).catch(() => undefined))?.isFile() === true;
  return found !== undefined && /^kind: *['"]?FlowSet\b/m.test(await readFile(path, 'utf8'));
}
