import { describe, expect, it } from 'vitest';
import { compile } from '#flows/compile/compile.ts';
import { policyText } from '#flows/compile/policy-text.ts';
import { resolveFacts } from '#flows/model/facts.ts';
import { loadFlowSet } from '#flows/model/load.ts';
import type { Model } from '#flows/model/model.ts';
import { resolve } from '#flows/model/resolve.ts';
import { parseStream } from '#lib/yaml.ts';
import { changesBetween } from './changes.ts';

const WEB_DB = '{ id: web-db, from: web, to: db, ports: 5432 }';

function modelOf(...flows: readonly string[]): Model {
  const text = `apiVersion: net.brokkr.dev/v1
kind: FlowSet
metadata: { name: shop }
spec:
  defaults: { deny: [ingress, egress], dns: false, protocol: TCP }
  zones:
    - { name: app, namespace: shop }
    - { name: guests, namespace: guests, trust: untrusted }
    - { name: office }
    - { name: street, trust: untrusted }
  endpoints:
    web: { zone: app, pods: { app: web } }
    db: { zone: app, pods: { matchExpressions: [{ key: app, operator: In, values: [db, store] }] } }
    guest: { zone: guests, pods: {} }
    desk: { zone: office, cidr: 198.51.100.0/24 }
    street: { zone: street, cidr: 203.0.113.0/24 }
    internet: { cidr: 0.0.0.0/0 }
  flows:
    - { id: db-db, from: db, to: db, ports: 5432 }
${flows.map((flow) => `    - ${flow}\n`).join('')}`;
  return resolve(loadFlowSet(text, 'flows.yaml'), { today: '2026-01-01', facts: resolveFacts() });
}

const policiesOf = (model: Model) => parseStream(policyText(compile(model).objects)).documents.map(({ value }) => value);
const changes = (before: Model, after: Model) =>
  changesBetween(after, policiesOf(before), policiesOf(after)).map(
    ({ change, src, dst, protocol, ports, approval }) =>
      `${change} ${src} to ${dst}: ${protocol} ${ports}${approval && `, ${approval}`}`,
  );

describe('changes between policies', () => {
  it('are none between equal ones', () => {
    expect(changes(modelOf(WEB_DB), modelOf(WEB_DB))).toEqual([]);
  });

  it('from trusted zones are told, and need no approval', () => {
    expect(changes(modelOf(), modelOf(WEB_DB))).toEqual(['gained shop/web to shop/db: TCP 5432']);
    const desk = '{ id: desk, from: desk, to: web, ports: 8080 }';
    expect(changes(modelOf(), modelOf(desk))).toEqual(['gained 198.51.100.0/24 to shop/web: TCP 8080']);
  });

  it.each([
    ['guest', 'guests/guest'],
    ['street', '203.0.113.0/24'],
  ])('gained from the untrusted zone of %s need approval', (from, label) => {
    const found = changes(modelOf(), modelOf(`{ id: in, from: ${from}, to: db, ports: [5432, 5433] }`));
    expect(found).toContain(`gained ${label} to shop/db: TCP 5432-5433, gained from an untrusted zone`);
  });

  it('lost by a flow that is required, or not declared any more, need approval; by an optional one they do not', () => {
    expect(changes(modelOf(WEB_DB), modelOf())).toEqual(['lost shop/web to shop/db: TCP 5432, lost for a required flow']);
    const moved = '{ id: web-db, from: web, to: db, ports: 5433 }';
    expect(changes(modelOf(WEB_DB), modelOf(moved))).toEqual([
      'gained shop/web to shop/db: TCP 5433',
      'lost shop/web to shop/db: TCP 5432, lost for a required flow',
    ]);
    const optional = '{ id: web-db, from: web, to: db, ports: 5433, required: false }';
    expect(changes(modelOf(WEB_DB), modelOf(optional))).toContain('lost shop/web to shop/db: TCP 5432');
    const expired = '{ id: web-db, from: web, to: db, ports: 5432, expires: 2025-12-31 }';
    expect(changes(modelOf(WEB_DB), modelOf(expired))).toEqual(['lost shop/web to shop/db: TCP 5432, lost for a required flow']);
  });

  it('are told by ranges of addresses when only a part of them changes', () => {
    const some = '{ id: out, from: web, to: desk, ports: 443 }';
    const all = '{ id: out, from: web, to: internet, ports: 443 }';
    expect(changes(modelOf(some), modelOf(all))).toEqual([
      'gained shop/web to kube-system/dns: TCP 443',
      'gained shop/web to kube-system/any-other-pod: TCP 443',
      'gained shop/web to any-other-namespace/any-other-pod: TCP 443',
      'gained shop/web to 0.0.0.0-198.51.99.255,198.51.101.0-255.255.255.255: TCP 443',
    ]);
  });

  it('need no approval when nothing was published before', () => {
    const model = modelOf(WEB_DB);
    const found = changesBetween(model, [], policiesOf(model));
    expect(found.length).toBeGreaterThan(10);
    expect(new Set(found.map(({ change, approval }) => change + approval))).toEqual(new Set(['lost']));
  });
});
