import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { writeKubeconfig } from '../hack/kube/kubeconfig.ts';
import type { KubeClient } from '../hack/kube/request.ts';
import { systemClock } from '../lib/clock.ts';

/** A user made for a test: a ServiceAccount with a token of a day. */
export interface TestIdentity {
  /** As RBAC and the audit log name it. */
  readonly user: string;
  readonly token: string;
  readonly kubeconfigPath: string;
  /** For `subjects` of role bindings. */
  readonly subject: { readonly kind: 'ServiceAccount'; readonly name: string; readonly namespace: string };
}

/** Rights of an identity; none are given unless asked for. */
export interface IdentityOptions {
  readonly clusterAdmin?: boolean;
  /** RBAC policy rules: in `namespace` when that is given, in the whole cluster otherwise. */
  readonly rules?: readonly PolicyRule[];
  /** Where the ServiceAccount lives, and the default namespace of its kubeconfig. Without it: `default`. */
  readonly namespace?: string;
}

interface PolicyRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
}

interface Cluster {
  readonly url: string;
  readonly caData: string;
  /** Where kubeconfigs go. */
  readonly dir: string;
  /** As admin. */
  readonly request: KubeClient;
}

const rbacApi = '/apis/rbac.authorization.k8s.io/v1';

/** Creates a ServiceAccount `prefix-<random>`, its token, kubeconfig and rights; returns once the rights hold. */
export async function createIdentity(
  prefix: string,
  rights: IdentityOptions,
  { url, caData, dir, request }: Cluster,
  signal: AbortSignal,
): Promise<TestIdentity> {
  const name = unique(prefix);
  const namespace = rights.namespace ?? 'default';
  const subject = { kind: 'ServiceAccount', name, namespace } as const;
  const create = async (path: string, body: object) => {
    const answer = await request({ method: 'POST', path, body }, signal);
    if (answer.status !== 201) throw new Error(`POST ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  };
  const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
  await create(accounts, { metadata: { name } });
  const { status } = await create(`${accounts}/${name}/token`, { spec: { expirationSeconds: 86_400 } });
  for (const { path, body } of grants(subject, rights)) await create(path, body);
  const user = `system:serviceaccount:${namespace}:${name}`;
  // Role bindings reach the authoriser some milliseconds after they are stored.
  const review = reviewOf(user, rights);
  await until(async () => {
    if (review === undefined) return true;
    return (await create('/apis/authorization.k8s.io/v1/subjectaccessreviews', review)).status.allowed;
  }, signal);
  const kubeconfigPath = join(dir, name);
  await writeKubeconfig(kubeconfigPath, { server: url, caData, token: status.token, namespace });
  return { user, token: status.token, kubeconfigPath, subject };
}

/** Asks every 20 ms until the condition holds. */
export async function until(condition: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
  while (!(await condition())) await systemClock.sleep(20, signal);
}

/** A name no other test has. */
export function unique(prefix: string): string {
  return `${prefix}-${randomBytes(4).toString('hex')}`;
}

/** The objects that give an identity its rights, in the order to create them. */
function grants(subject: TestIdentity['subject'], { clusterAdmin, rules, namespace }: IdentityOptions) {
  const { name } = subject;
  const roleRef = (kind: 'ClusterRole' | 'Role', role: string) => ({ apiGroup: 'rbac.authorization.k8s.io', kind, name: role });
  const binding = (binds: ReturnType<typeof roleRef>, suffix: string) => ({
    metadata: { name: `${name}-${suffix}` },
    roleRef: binds,
    subjects: [subject],
  });
  const objects: { readonly path: string; readonly body: object }[] = [];
  if (clusterAdmin === true) {
    objects.push({ path: `${rbacApi}/clusterrolebindings`, body: binding(roleRef('ClusterRole', 'cluster-admin'), 'admin') });
  }
  if (rules !== undefined && namespace === undefined) {
    objects.push({ path: `${rbacApi}/clusterroles`, body: { metadata: { name }, rules } });
    objects.push({ path: `${rbacApi}/clusterrolebindings`, body: binding(roleRef('ClusterRole', name), 'rules') });
  }
  if (rules !== undefined && namespace !== undefined) {
    objects.push({ path: `${rbacApi}/namespaces/${namespace}/roles`, body: { metadata: { name }, rules } });
    objects.push({ path: `${rbacApi}/namespaces/${namespace}/rolebindings`, body: binding(roleRef('Role', name), 'rules') });
  }
  return objects;
}

/** A SubjectAccessReview that is allowed once the rights hold; undefined for an identity without rights. */
function reviewOf(user: string, { clusterAdmin, rules = [], namespace }: IdentityOptions): object | undefined {
  const everything = { apiGroups: ['*'], resources: ['*'], verbs: ['*'] };
  const rule: PolicyRule | undefined = clusterAdmin === true ? everything : rules.find(({ resources }) => resources?.length > 0);
  if (rule === undefined) return undefined;
  const [resource, subresource] = (rule.resources[0] ?? '').split('/');
  const attributes = { group: rule.apiGroups[0], resource, subresource, verb: rule.verbs[0], name: rule.resourceNames?.[0] };
  const scope = clusterAdmin === true ? {} : { namespace };
  return { spec: { user, resourceAttributes: { ...attributes, ...scope } } };
}
