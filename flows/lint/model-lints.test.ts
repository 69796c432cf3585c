import { describe, expect, it } from 'vitest';
import type { PartialFacts } from '#flows/model/facts.ts';
import type { Selection } from '#flows/model/resolve.ts';
import { specModel } from '../../test/flows/spec-model.ts';
import { lintModel, MODEL_LINTS } from './model-lints.ts';

const zones = [
  { name: 'app', namespace: 'shop' },
  { name: 'open', namespace: 'open', isolate: [] },
];
const endpoints = {
  web: { zone: 'app', pods: { app: 'web' }, services: [{ name: 'web', ports: [{ port: 80, targetPort: 8080 }] }] },
  open: { zone: 'open', pods: {} },
  world: { any: true },
  office: { cidr: '192.0.2.0/24' },
};
const used = { id: 'used', from: 'office', to: 'web', ports: 8080 };

interface Case {
  readonly spec: object;
  readonly selection?: Partial<Selection>;
  readonly facts?: PartialFacts;
}

/** Lints found in a set with an endpoint and a flow that are right, and those of the case. */
function found({ spec, selection, facts }: Case) {
  const { endpoints: more = {}, flows = [], ...rest } = spec as { endpoints?: object; flows?: object[] };
  return lintModel(
    specModel({ zones, ...rest, endpoints: { ...endpoints, ...more }, flows: [used, ...flows] }, facts, selection),
  );
}

const internet = (cidr: unknown, except?: unknown) => ({
  endpoints: { internet: { cidr, ...(except !== undefined && { except }) } },
  flows: [{ id: 'f', from: 'web', to: 'internet', ports: 443 }],
});
const profiles = ['production', 'development'];
const fromWorld = (more: object) => ({ profiles, flows: [{ id: 'f', from: 'world', to: 'web', ports: 8080, ...more }] });

/** For each lint a wrong set, what is said about it, and the same set put right. */
const CASES: Readonly<Record<(typeof MODEL_LINTS)[number], { wrong: Case; says: string; right: Case }>> = {
  'UNUSED-FLOW': {
    wrong: { spec: { flows: [{ id: 'f', from: 'office', to: 'open', ports: 80 }] } },
    says: 'f: no policy comes of it: neither office nor open is in a zone that denies this direction',
    right: { spec: { flows: [{ id: 'f', from: 'web', to: 'open', ports: 80 }] } },
  },
  'WORKLOAD-WITHOUT-FLOW': {
    wrong: { spec: { endpoints: { cron: { zone: 'app', pods: { app: 'cron' } } } } },
    says: 'cron: zone app denies by default and no flow names cron',
    right: {
      spec: {
        endpoints: { cron: { zone: 'app', pods: { app: 'cron' } } },
        flows: [{ id: 'f', from: 'cron', to: 'web', ports: 8080 }],
      },
    },
  },
  'EXPOSURE-IN-PRODUCTION': {
    wrong: { spec: fromWorld({ profiles: ['development'] }), selection: { profiles } },
    says: 'f: world reaches web in production through a declaration for development',
    right: { spec: fromWorld({ profiles: ['production'] }), selection: { profiles: ['production'] } },
  },
  'EXPIRED-FLOW': {
    wrong: { spec: { flows: [{ id: 'f', from: 'office', to: 'web', ports: 22, expires: '2026-05-31' }] } },
    says: 'f: it expired on 2026-05-31 and is not compiled any more',
    right: { spec: { flows: [{ id: 'f', from: 'office', to: 'web', ports: 22, expires: '2026-06-01' }] } },
  },
  'SERVICE-PORT': {
    wrong: { spec: { flows: [{ id: 'f', from: 'office', to: 'web', ports: 80 }] } },
    says: 'f: port 80 is that of Service web; the pods of web listen on 8080',
    right: { spec: { flows: [{ id: 'f', from: 'office', to: 'web', ports: 8080 }] } },
  },
  'HOST-PORT-CONFLICT': {
    wrong: {
      spec: {
        options: { web: { hostPorts: [{ host: 3000, container: 1 }] }, open: { hostPorts: [{ host: 3000, container: 2 }] } },
      },
    },
    says: 'open: port 3000 of the host is mapped to web already',
    right: {
      spec: {
        options: { web: { hostPorts: [{ host: 3000, container: 1 }] }, open: { hostPorts: [{ host: 3001, container: 1 }] } },
      },
    },
  },
  'PRIVATE-LEAK': {
    wrong: { spec: internet('0.0.0.0/0', ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '169.254.169.254/32']) },
    says: 'f: internet includes addresses that are not on the Internet: 0.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16 and 4 more',
    right: { spec: internet('0.0.0.0/0', 'private') },
  },
  'POD-CIDR-LEAK': {
    wrong: { spec: internet('8.0.0.0/7', '8.8.0.0/16'), facts: { podCIDRs: ['9.1.0.0/16'] } },
    says: 'f: internet includes addresses of the cluster itself: 9.1.0.0/16',
    right: { spec: internet('8.0.0.0/7', 'cluster'), facts: { podCIDRs: ['9.1.0.0/16'] } },
  },
  'BROAD-CIDR': {
    wrong: { spec: internet('0.0.0.0/0') },
    says: 'f: internet includes every address, with no exception: 0.0.0.0/0',
    right: { spec: internet('0.0.0.0/0', 'private') },
  },
  'HALF-OPEN': {
    wrong: {
      spec: {
        endpoints: { shop: { namespaces: { 'kubernetes.io/metadata.name': 'shop' } } },
        flows: [{ id: 'f', from: 'shop', to: 'web', ports: 8080 }],
      },
    },
    says: 'f: shop names pods of zone app, which denies egress: give them an endpoint of that zone',
    right: {
      spec: { endpoints: { shop: { zone: 'app', pods: {} } }, flows: [{ id: 'f', from: 'shop', to: 'web', ports: 8080 }] },
    },
  },
};

describe.each(MODEL_LINTS)('%s', (lint) => {
  const { wrong, says, right } = CASES[lint];

  it('is found where something is wrong', () => {
    const findings = found(wrong).filter((finding) => finding.lint === lint);
    expect(findings.map(({ subject, message }) => `${subject}: ${message}`)).toEqual([expect.stringContaining(says)]);
    expect(findings[0]).toMatchObject({ place: expect.stringMatching(/^f\.yaml:1:\d+$/), accepted: undefined });
  });

  it('is not found where it is right', () => {
    expect(found(right).filter((finding) => finding.lint === lint)).toEqual([]);
  });
});

describe('lintModel', () => {
  it('keeps what is accepted apart, for a flow or for the set', () => {
    const flow = { id: 'f', from: 'office', to: 'web', ports: 80 };
    const ofFlow = found({ spec: { flows: [{ ...flow, accepted: [{ lint: 'SERVICE-PORT', reason: 'why' }] }] } });
    const ofSet = found({ spec: { flows: [flow], accepted: [{ lint: 'SERVICE-PORT', subject: 'f', reason: 'why' }] } });
    const ofAll = found({ spec: { flows: [flow], accepted: [{ lint: 'SERVICE-PORT', reason: 'why' }] } });
    const ofOther = found({ spec: { flows: [flow], accepted: [{ lint: 'BROAD-CIDR', reason: 'why' }] } });
    expect([ofFlow, ofSet, ofAll, ofOther].map((findings) => findings.map(({ accepted }) => accepted))).toEqual([
      ['why'],
      ['why'],
      ['why'],
      [undefined],
    ]);
  });

  it.each([
    ['a flow for all profiles', fromWorld({}), ['production'], 'a declaration for all profiles'],
    [
      'a source that an overlay turns into the world',
      {
        ...fromWorld({ profiles: ['production'], from: 'lan' }),
        endpoints: { lan: { cidr: '192.0.2.0/24', profiles: { development: { any: true } } } },
      },
      profiles,
      'the overlay of development',
    ],
    [
      'ranges so wide that they are the world',
      { ...fromWorld({ from: 'half' }), endpoints: { half: { cidr: ['0.0.0.0/1', '128.0.0.0/1'] } } },
      ['production'],
      'a declaration for all profiles',
    ],
  ])('finds %s exposed in production', (_, spec, selected, way) => {
    const findings = found({ spec, selection: { profiles: selected } }).filter(({ severity }) => severity === 'error');
    expect(findings).toEqual([
      expect.objectContaining({ lint: 'EXPOSURE-IN-PRODUCTION', message: expect.stringContaining(way) }),
    ]);
    expect(found({ spec, selection: { profiles: ['development'] } }).filter(({ severity }) => severity === 'error')).toEqual([]);
  });
});
