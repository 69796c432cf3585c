import { describe, expect, it } from 'vitest';
import type { Value } from '#lib/object.ts';
import type { ManagedFieldsEntry, ObjectMeta } from '../kube/objects.ts';
import { changedFields } from './fields.ts';

const metadata = (...managedFields: ManagedFieldsEntry[]): ObjectMeta => ({
  name: 'n',
  uid: 'u',
  resourceVersion: '1',
  managedFields,
});
const ours = (fieldsV1: object): ManagedFieldsEntry => ({ manager: 'us', operation: 'Apply', fieldsV1: fieldsV1 as never });
const theirs = (fieldsV1: object, manager = 'them'): ManagedFieldsEntry => ({
  manager,
  operation: 'Update',
  fieldsV1: fieldsV1 as never,
});
const changes = (wanted: Value, live: Value, ...entries: ManagedFieldsEntry[]) =>
  changedFields(wanted, live, metadata(...entries), 'us').map(({ path, lost, owners }) => ({
    path,
    lost,
    owners: owners.map(({ manager }) => manager),
  }));
const ports = (...items: object[]) => ({ spec: { ports: items } }) as unknown as Value;
const port = (number: number, protocol = 'TCP') => `k:${JSON.stringify({ port: number, protocol })}`;

describe('changed fields', () => {
  it('are none where everything is ours and as wanted', () => {
    const wanted = { apiVersion: 'v1', kind: 'K', metadata: { name: 'n', labels: { a: '1' } }, data: { k: 'v' } };
    const set = { 'f:metadata': { 'f:labels': { 'f:a': {} } }, 'f:data': { 'f:k': {} } };
    expect(changes(wanted, { ...wanted, more: 1 }, ours(set), theirs({ 'f:more': {} }))).toEqual([]);
  });

  it('name the owner of what was lost, or nobody', () => {
    const wanted = { data: { a: '1', b: '2', c: '3' } };
    const entries = [ours({ 'f:data': { 'f:a': {} } }), theirs({ 'f:data': { 'f:b': {} } })];
    expect(changes(wanted, { data: { a: '1', b: '9' } }, ...entries)).toEqual([
      { path: '.data.b', lost: true, owners: ['them'] },
      { path: '.data.c', lost: true, owners: [] },
    ]);
  });

  it('are told of values of our own that changed', () => {
    const entry = ours({ 'f:data': { 'f:a': {} } });
    expect(changes({ data: { a: '1' } }, { data: { a: '2' } }, entry)).toEqual([{ path: '.data.a', lost: false, owners: [] }]);
  });

  it('find items of a list by their keys, of which some may be left to their default', () => {
    const wanted = ports({ port: 80, name: 'http' }, { port: 53, protocol: 'UDP' });
    const live = ports({ port: 53, protocol: 'UDP' }, { port: 80, protocol: 'TCP', name: 'other' });
    const http = { '.': {}, 'f:port': {} };
    const dns = { '.': {}, 'f:port': {}, 'f:protocol': {} };
    const entries = [
      ours({ 'f:spec': { 'f:ports': { [port(80)]: http, [port(53, 'UDP')]: dns } } }),
      theirs({ 'f:spec': { 'f:ports': { [port(80)]: { 'f:name': {} } } } }),
      theirs({ 'f:spec': { 'f:ports': { [port(443)]: { '.': {}, 'f:name': {} } } } }, 'others'),
    ];
    expect(changes(wanted, live, ...entries)).toEqual([
      { path: '.spec.ports[port=80,protocol="TCP"].name', lost: true, owners: ['them'] },
    ]);
  });

  it('take a list without keys, a set and an atomic map as what they are', () => {
    const wanted = { spec: { args: ['a'], finalizers: ['f'], selector: { app: 'x' } } };
    const live = { spec: { args: ['b'], finalizers: ['g'], selector: { app: 'y' } } };
    const entries = [
      ours({ 'f:spec': { 'f:selector': {} } }),
      theirs({ 'f:spec': { 'f:args': {}, 'f:finalizers': { 'v:"f"': {}, 'v:"g"': {} } } }),
    ];
    expect(changes(wanted, live, ...entries)).toEqual([
      { path: '.spec.args', lost: true, owners: ['them'] },
      { path: '.spec.finalizers[="f"]', lost: true, owners: ['them'] },
      { path: '.spec.selector', lost: false, owners: [] },
    ]);
  });

  it('are named as a whole where nobody knows more, and where others own a whole', () => {
    const wanted = { spec: { a: { b: 1, c: 2 } }, data: { k: { l: 1 } } };
    expect(changes(wanted, { data: { k: 5 } }, ours({ 'f:x': {} }), theirs({ 'f:data': { 'f:k': {} } }))).toEqual([
      { path: '.spec', lost: true, owners: [] },
      { path: '.data.k', lost: true, owners: ['them'] },
    ]);
  });

  it('leave the status of an object out', () => {
    const entry = { ...theirs({ 'f:spec': { 'f:a': {} } }), subresource: 'status' };
    expect(changes({ spec: { a: 1 } }, { spec: { a: 2 } }, ours({ 'f:spec': { 'f:b': {} } }), entry)).toEqual([
      { path: '.spec.a', lost: true, owners: [] },
    ]);
  });
});
