import { type CompileOptions, compile, type NetworkPolicySpec } from '#flows/compile/compile.ts';
import type { PartialFacts } from '#flows/model/facts.ts';
import { specModel } from './spec-model.ts';

/** Zones that deny both directions, one, and none. */
const zones = [
  { name: 'app', namespace: 'shop' },
  { name: 'ops', namespace: 'ops', isolate: ['ingress'] },
  { name: 'open', namespace: 'open', isolate: [] },
];
/** Endpoints of every kind, without DNS. */
export const endpoints = {
  web: { zone: 'app', pods: { app: 'web' }, dns: false },
  dataBase: { zone: 'app', pods: { app: 'db' }, dns: false },
  ops: { zone: 'ops', pods: {}, dns: false },
  open: { zone: 'open', pods: {}, dns: false },
  world: { any: true },
  internet: { cidr: '0.0.0.0/0', except: ['private'] },
  office: { cidr: '192.0.2.0/24' },
  partner: { names: ['*.example.com', 'example.com'], cidr: '198.51.100.0/24' },
  nameless: { names: ['example.org'] },
  api: { builtin: 'kube-api' },
  hooks: { zone: 'app', pods: { app: 'hooks' }, dns: false },
};
/** A flow of a spec. */
export const flow = (id: string, from: unknown, to: unknown, ports: unknown = 80, more: object = {}) => ({
  id,
  from,
  to,
  ports,
  ...more,
});

/** Compiles flows between these endpoints; `more` replaces parts of the spec. */
export function compiled(flows: readonly object[], facts: PartialFacts = {}, options: CompileOptions = {}, more: object = {}) {
  const { objects, notes } = compile(specModel({ zones, endpoints, flows, ...more }, facts), options);
  const find = (name: string, kind = 'NetworkPolicy') =>
    objects.find((object) => object.metadata.name === name && object.kind === kind);
  return { objects, notes, policy: (name: string) => find(name)?.spec as NetworkPolicySpec | undefined, find };
}
