import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { ApplyOptionsSchema } from '#proto/brokkr/v1/content_pb.js';
import { assertOptions } from './options-check.ts';

type Options = MessageInitShape<typeof ApplyOptionsSchema>;

describe('options', () => {
  it.each<[Options, string]>([
    [{ impersonate: 'deployer' }, 'options.impersonate is not a service account'],
    [{ yieldManagers: ['a', 'b*c'] }, 'options.yield_managers[1] has a * that is not at its end'],
    [{ driftRules: [{ group: 'apps' }] }, 'options.drift_rules[0] names the group apps without a kind'],
    [{ ignore: [{}, { group: 'apps', paths: ['/spec'] }] }, 'options.ignore[1] names the group apps without a kind'],
    [
      {
        healthRules: [
          { group: 'g', kind: 'K', current: 'true' },
          { group: 'h', kind: 'K', current: 'true' },
          { group: 'g', kind: 'K', current: 'false' },
        ],
      },
      'options.health_rules[2] is the second one for K.g',
    ],
    [{ healthRules: [{ kind: 'K', current: 'object.status.ready ==' }] }, 'options.health_rules[0] cannot be used: '],
    [{ healthRules: [{ kind: 'K', current: 'true', message: '1 + 1' }] }, 'options.health_rules[0] cannot be used: message'],
  ])('%j are refused with their place', (options, words) => {
    expect(() => assertOptions(create(ApplyOptionsSchema, options))).toThrow(words);
  });

  it.each<Options>([
    {},
    { impersonate: 'shop/deployer', yieldManagers: ['kube-controller-manager', 'x*', '*'] },
    { driftRules: [{ kind: '' }, { kind: 'Pod' }, { group: 'apps', kind: 'Deployment' }] },
  ])('%j are taken', (options) => {
    expect(() => assertOptions(create(ApplyOptionsSchema, options))).not.toThrow();
  });
});
