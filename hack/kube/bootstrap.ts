import { systemClock } from '#lib/clock.ts';
import type { KubeClient } from './request.ts';

const nodeName = 'kwok-0';
const admissionApi = '/apis/admissionregistration.k8s.io/v1';

/**
 * Binds the group of the `ops` user to cluster-admin (every right, but checked and rate-limited like a user's) and waits
 * for the namespace `default`, which the server creates some moments after it is ready.
 */
export async function prepareCluster(client: KubeClient, signal: AbortSignal): Promise<void> {
  await create(client, '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', operatorsBinding, signal);
  while ((await client({ method: 'GET', path: '/api/v1/namespaces/default' }, signal)).status !== 200) {
    await systemClock.sleep(20, signal);
  }
}

/**
 * Creates the one node and the admission policy that puts every pod on it, in place of a scheduler. Call before kwok
 * starts: it also drops the lease of an earlier kwok, whose end a new one would await for 40 s.
 */
export async function createNode(client: KubeClient, signal: AbortSignal): Promise<void> {
  const lease = `/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/${nodeName}`;
  await client({ method: 'DELETE', path: lease }, signal);
  await create(client, '/api/v1/nodes', node, signal);
  await create(client, `${admissionApi}/mutatingadmissionpolicies`, placePods, signal);
  await create(client, `${admissionApi}/mutatingadmissionpolicybindings`, placePodsBinding, signal);
}

/** Resolves when the node is Ready and a pod would be admitted and placed, which needs the controllers at work. */
export async function awaitNode(client: KubeClient, signal: AbortSignal): Promise<void> {
  for (;;) {
    const ready = await client({ method: 'GET', path: `/api/v1/nodes/${nodeName}` }, signal);
    const conditions: readonly { type: string; status: string }[] = ready.body?.status?.conditions ?? [];
    if (conditions.some(({ type, status }) => type === 'Ready' && status === 'True')) {
      const path = '/api/v1/namespaces/default/pods?dryRun=All';
      const { status, body } = await client({ method: 'POST', path, body: probePod }, signal);
      if (status === 201 && body.spec.nodeName === nodeName) return;
    }
    await systemClock.sleep(50, signal);
  }
}

/** Creates an object; one that is there from an earlier start is left as it is. */
async function create(client: KubeClient, path: string, body: object, signal: AbortSignal): Promise<void> {
  const answer = await client({ method: 'POST', path, body }, signal);
  if (answer.status !== 201 && answer.status !== 409) {
    throw new Error(`creating an object at ${path} was answered with ${answer.status}: ${JSON.stringify(answer.body)}`);
  }
}

const operatorsBinding = {
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'ClusterRoleBinding',
  metadata: { name: 'brokkr-ops' },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
  subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'brokkr:ops' }],
};

const node = {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: {
    name: nodeName,
    labels: { 'kubernetes.io/hostname': nodeName, 'kubernetes.io/os': 'linux', 'kubernetes.io/arch': 'amd64' },
  },
  status: { allocatable: { cpu: '64', memory: '512Gi', pods: '5000' } },
};

const placePods = {
  apiVersion: 'admissionregistration.k8s.io/v1',
  kind: 'MutatingAdmissionPolicy',
  metadata: { name: 'brokkr-place-pods' },
  spec: {
    matchConstraints: { resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }] },
    failurePolicy: 'Fail',
    reinvocationPolicy: 'Never',
    mutations: [
      {
        patchType: 'ApplyConfiguration',
        applyConfiguration: { expression: `Object{spec: Object.spec{nodeName: '${nodeName}'}}` },
      },
    ],
  },
};

const placePodsBinding = {
  apiVersion: 'admissionregistration.k8s.io/v1',
  kind: 'MutatingAdmissionPolicyBinding',
  metadata: { name: 'brokkr-place-pods' },
  spec: { policyName: 'brokkr-place-pods' },
};

const probePod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'brokkr-probe' },
  spec: { containers: [{ name: 'probe', image: 'probe' }] },
};
