import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { helmNames } from '../../hack/helm/helm.ts';
import { type Kube, useKube } from '../kube.ts';
import { type ChartName, chartPath, type Helm, merged, NEEDED, openHelm } from './helm.ts';

/** What a chart may leave behind nothing of. */
const KINDS =
  'deployments,statefulsets,services,configmaps,secrets,serviceaccounts,networkpolicies,roles,rolebindings,horizontalpodautoscalers,poddisruptionbudgets,ingresses';

let kube: Kube;
beforeAll(async () => {
  kube = await useKube();
});

describe.each(helmNames)('%s', (name) => {
  let helm: Helm;
  beforeAll(async () => {
    helm = await openHelm(name, kube.kubeconfigPath);
  });
  afterAll(() => helm?.[Symbol.asyncDispose]());

  const get = async (path: string) => (await kube.request('GET', path)).body;
  const deploymentIn = (namespace: string, chart: ChartName) => get(`/apis/apps/v1/namespaces/${namespace}/deployments/${chart}`);
  /** Names of the objects of a release, `kind/name`. */
  const objectsOf = async (namespace: string, chart: ChartName) => {
    const selector = `app.kubernetes.io/instance=${chart},app.kubernetes.io/managed-by=Helm`;
    const names = await kube.kubectl('get', KINDS, '--namespace', namespace, '--selector', selector, '--output', 'name');
    return names.trim().split('\n').filter(Boolean);
  };
  const change = (verb: 'install' | 'upgrade', chart: ChartName, namespace: string, values: object) =>
    helm.run([verb, chart, chartPath(chart), '--namespace', namespace], merged(NEEDED[chart], values));

  it.each<[ChartName, object, string]>([
    [
      'brokkr-broker',
      { networkPolicy: { enabled: true }, service: { type: 'LoadBalancer' }, broker: { logLevel: 'debug' } },
      'LOG__LEVEL',
    ],
    ['brokkr-agent', { rbac: { clusterWide: false }, agent: { pollingInterval: 5 } }, 'POLLING_INTERVAL'],
  ])('installs, upgrades, rolls back, uninstalls and installs again %s', { timeout: 120_000 }, async (chart, values, setting) => {
    const namespace = await kube.namespace('charts-life');
    const settings = async () => (await get(`/api/v1/namespaces/${namespace}/configmaps/${chart}`)).data;
    const secret = async () => (await get(`/api/v1/namespaces/${namespace}/secrets/brokkr-broker-postgresql`)).data;
    const checksum = async () => (await deploymentIn(namespace, chart)).spec.template.metadata.annotations['checksum/config'];

    await change('install', chart, namespace, {});
    const [before, password, roll, objects] = [
      await settings(),
      await secret(),
      await checksum(),
      await objectsOf(namespace, chart),
    ];
    expect(objects).toContain(`deployment.apps/${chart}`);

    const notes = await change('upgrade', chart, namespace, values);
    expect(notes).toContain('WARNING'); // neither has TLS
    const [changed] = Object.keys(before).filter((key) => key.endsWith(setting));
    expect((await settings())[changed ?? '']).not.toBe(before[changed ?? '']);
    expect(await checksum()).not.toBe(roll);
    expect(await secret()).toEqual(password);

    await helm.run(['rollback', chart, '1', '--namespace', namespace]);
    expect(await settings()).toEqual(before);
    expect(await checksum()).toBe(roll);
    expect(await secret()).toEqual(password);
    expect(await objectsOf(namespace, chart)).toEqual(objects);

    await helm.run(['uninstall', chart, '--namespace', namespace]);
    const kept = chart === 'brokkr-broker' ? ['secret/brokkr-broker-postgresql'] : [];
    await expect.poll(() => objectsOf(namespace, chart)).toEqual(kept);
    const roles = await kube.kubectl('get', 'clusterroles,clusterrolebindings', '--output', 'name');
    expect(roles).not.toContain(`${namespace}-`);

    await change('install', chart, namespace, {});
    expect(await secret()).toEqual(password);
    expect(await objectsOf(namespace, chart)).toEqual(objects);
  });

  it('waits until what it installs is ready', { timeout: 120_000 }, async () => {
    const namespace = await kube.namespace('charts-ready');
    const database = { postgresql: { enabled: false, existingSecret: 'db' }, replicaCount: 2 };
    const args = ['install', 'brokkr-broker', chartPath('brokkr-broker'), '--namespace', namespace, '--wait', '--timeout', '60s'];
    await helm.run(args, database);
    expect((await deploymentIn(namespace, 'brokkr-broker')).status.readyReplicas).toBe(2);
  });
});
