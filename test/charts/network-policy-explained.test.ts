import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Cli } from '../../cli/cli.ts';
import { explain } from '../../cli/flows/explain.ts';
import { createTerminal } from '../../cli/terminal.ts';
import { systemClock } from '../../lib/clock.ts';
import { BROKER, PODS } from '../flows/chart-cells.ts';
import { type Kube, useKube } from '../kube.ts';
import { type Helm, openHelm } from './helm.ts';

let kube: Kube;
let helm: Helm;
let namespace: string;
beforeAll(async () => {
  kube = await useKube();
  namespace = await kube.namespace('explained');
  helm = await openHelm('helm4');
  for (const object of await helm.render('brokkr-broker', BROKER, namespace)) {
    if (object.kind !== 'NetworkPolicy') continue;
    const path = `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`;
    expect((await kube.request('POST', path, object)).status).toBe(201);
  }
  for (const name of ['broker', 'db', 'other']) {
    const spec = { containers: [{ name: 'main', image: 'x' }] };
    const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name, labels: PODS[`brokkr/${name}`] }, spec };
    expect((await kube.request('POST', `/api/v1/namespaces/${namespace}/pods`, pod)).status).toBe(201);
  }
});
afterAll(() => helm?.[Symbol.asyncDispose]());

// N-146
describe('the policies of a namespace on a server', () => {
  it('are listed and described by kubectl', async () => {
    const listed = await kube.kubectl('get', 'networkpolicy', '--namespace', namespace, '--output=name');
    expect(
      listed
        .trim()
        .split('\n')
        .map((line) => line.split('/')[1]),
    ).toEqual(['brokkr-broker', 'brokkr-broker-postgresql']);
    const described = await kube.kubectl('describe', 'networkpolicy', 'brokkr-broker', '--namespace', namespace);
    expect(described).toMatch(/PodSelector:.*name=brokkr-broker/);
    expect(described).toMatch(/To Port: 3000\/TCP\s+From:\s+NamespaceSelector: kubernetes.io\/metadata.name=ingress-nginx/);
  });

  it('are explained for all pods, with what each rule admits', async () => {
    const manifests = await kube.kubectl('get', 'networkpolicy,pods', '--namespace', namespace, '--output=yaml');
    let text = '';
    const write = (chunk: string) => {
      text += chunk;
    };
    const terminal = createTerminal({ write }, { write }, {});
    const cli: Cli = { env: {}, clock: systemClock, flags: {}, signal: new AbortController().signal, terminal };
    const options = { filename: ['-'], cni: 'generic', output: 'table', namespace } as const;
    expect(await explain(cli, {}, options, Readable.from([manifests]))).toBe(0);
    const ingress =
      'from pods app.kubernetes.io/name=ingress-nginx in namespaces kubernetes.io/metadata.name=ingress-nginx: TCP 3000';
    expect(text).toContain(
      `${namespace}/broker\n  ingress: only\n    ${ingress} (NetworkPolicy ${namespace}/brokkr-broker ingress[0] at -:`,
    );
    expect(text).toMatch(/to addresses of 0\.0\.0\.0\/0 without .*10\.0\.0\.0\/8, .*: TCP 443 \(/);
    expect(text).toMatch(
      /\/db\n {2}ingress: only\n {4}from pods [^\n]*: TCP 5432 [^\n]*\n {2}egress: nothing\n {4}by NetworkPolicy .*-postgresql at -:/,
    );
    expect(text).toMatch(
      /\/other\n {2}ingress: everything, no policy acts on it\n {2}egress: everything, no policy acts on it\n/,
    );
    const nowhere = explain(cli, {}, { ...options, namespace: 'nowhere' }, Readable.from([manifests]));
    await expect(nowhere).rejects.toThrow('nothing in the manifests is in a namespace nowhere');
    await expect(explain(cli, { from: 'a/b' }, options, Readable.from([manifests]))).rejects.toThrow(/--namespace alone/);
  });
});
