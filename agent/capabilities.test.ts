import { describe, expect, it } from 'vitest';
import { configuredCapabilities, servedCapabilities } from './capabilities.ts';
import type { Resource } from './kube/resource.ts';

const resource = (group: string, version: string, kind: string): Resource => ({
  group,
  version,
  kind,
  plural: kind.toLowerCase(),
  namespaced: true,
  verbs: ['get'],
});

describe('what the API server serves', () => {
  it('is told by group and version, and by kind with the version it prefers', () => {
    const served = [resource('', 'v1', 'Pod'), resource('batch', 'v1', 'Job'), resource('batch', 'v1beta1', 'Job')];
    expect(servedCapabilities(served, 256)).toEqual({
      'api:v1': 'served',
      'api:batch/v1': 'served',
      'api:batch/v1beta1': 'served',
      'kind:Pod': 'v1',
      'kind:batch/Job': 'v1',
    });
  });

  it('is cut to what there is room for, and that is told', () => {
    const many = Array.from({ length: 300 }, (_, at) => resource('g', 'v1', `K${String(at).padStart(3, '0')}`));
    const cut = servedCapabilities(many, 200);
    expect(Object.keys(cut)).toHaveLength(200);
    expect(cut).toMatchObject({ 'api:g/v1': 'served', 'kind:g/K000': 'v1', 'kind:g/K197': 'v1', kinds_truncated: '102' });
  });
});

it('settings are pairs, whose value may hold an equals sign', () => {
  expect(configuredCapabilities(['region=eu', 'a=b=c'])).toEqual({ region: 'eu', a: 'b=c' });
});
