import { describe, expect, it } from 'vitest';
import { handMadeModel } from '../../test/flows/models.ts';
import { decisionRecord } from './decision-record.ts';
import { dot } from './dot.ts';
import { drawingOf } from './drawing.ts';
import { flowTable, tableNames } from './flow-tables.ts';
import { mermaidC4, mermaidFlowchart } from './mermaid.ts';
import { pathsOf } from './path.ts';
import { csvTable, markdownTable, tableObjects } from './text-table.ts';

const model = handMadeModel({
  title: 'A "test"',
  zones: { inside: { title: 'Inside', namespace: 'app', layer: 'pods' }, outside: { title: 'Outside', layer: 'external' } },
  endpoints: {
    user: { zone: 'outside', title: 'User', element: 'person' },
    dns: { zone: 'outside', title: 'DNS', peer: { kind: 'any' } },
    balancer: { zone: 'outside', title: 'Load balancer' },
    end: { zone: 'inside', title: 'Web', titles: { diagram: 'Web | tier', other: 'The web' }, namedPorts: {} },
    'a-b': { zone: 'inside' },
    a_b: { zone: 'inside' },
    idle: { zone: 'inside' },
  },
  flows: [
    {
      id: 'user-web',
      from: 'user',
      to: 'end',
      ports: [8080],
      application: 'HTTP',
      purpose: 'browse',
      purposes: { other: 'look' },
      tables: ['other'],
      direction: 'inbound',
      via: [
        { endpoint: 'dns', port: 53, application: 'DNS', label: 'asks' },
        { endpoint: 'balancer', port: 443, application: 'HTTPS', label: '' },
      ],
    },
    { from: 'end', to: 'a-b', ports: [{ kind: 'all' }], required: false },
    { from: 'end', to: 'a-b', id: 'again', ports: [{ kind: 'all' }] },
    { from: 'a-b', to: 'a_b', ports: [80, { kind: 'range', first: 90, last: 99 }], protocols: ['TCP', 'UDP'] },
    { from: 'a_b', to: 'end', ports: [81], implicit: true, purpose: 'assumed' },
  ],
});

describe('tables', () => {
  it('escape what would break them', () => {
    const table = {
      title: '',
      columns: ['A', 'B'],
      rows: [
        ['x|y', 'one\n  two'],
        ['say "x", y', '=1+1'],
      ],
    };
    expect(markdownTable(table)).toBe('| A | B |\n| --- | --- |\n| x\\|y | one two |\n| say "x", y | =1+1 |\n');
    expect(csvTable(table)).toBe('A,B\nx|y,"one\n  two"\n"say ""x"", y",\'=1+1\n');
    expect(tableObjects(table)[1]).toEqual({ A: 'say "x", y', B: '=1+1' });
  });

  it('are the matrix, those that flows name, and what is implicit', () => {
    expect(tableNames(model)).toEqual(['matrix', 'other', 'implicit']);
    expect(flowTable(model, 'matrix').rows.map((row) => row.slice(0, 4))).toEqual([
      ['User', 'Web', '8080', 'HTTP'],
      ['Web', 'a-b', 'all', 'TCP'],
      ['Web', 'a-b', 'all', 'TCP'],
      ['a-b', 'a_b', '80, 90-99', 'TCP, UDP'],
    ]);
    expect(flowTable(model, 'implicit').rows).toHaveLength(1);
    expect(() => flowTable(model, 'nothing')).toThrow('there is no table nothing, there are matrix, other, implicit');
  });

  it('use the words and columns that are declared for them', () => {
    const columns = (['id', 'from.cluster', 'to', 'protocols', 'required', 'purpose'] as const).map((field) => ({
      title: field,
      field,
    }));
    const zones = new Map(model.zones).set('outside', { ...model.zones.get('outside')!, cluster: 'admin' });
    const declared = { ...model, zones, tables: [{ name: 'other', title: 'Other', columns, sortBy: undefined }] };
    expect(flowTable(declared, 'other')).toEqual({
      title: 'Other',
      columns: columns.map(({ title }) => title),
      rows: [['user-web', 'Admin', 'The web', 'TCP', 'Yes', 'look']],
    });
  });

  it('are sorted where they ask for it', () => {
    const tables = [{ name: 'matrix', title: '', columns: [{ title: 'To', field: 'to' as const }], sortBy: 'to' as const }];
    expect(flowTable({ ...model, tables }, 'matrix').rows.flat()).toEqual(['Web', 'a-b', 'a-b', 'a_b']);
  });
});

describe('drawings', () => {
  it('hold what flows touch, once, with every hop', () => {
    const { loose, groups, relations, title } = drawingOf(model, 'zone');
    expect(title).toBe('A "test"');
    expect(loose.map(({ id }) => id)).toEqual(['user', 'dns', 'balancer']);
    expect(groups.map((group) => [group.title, group.elements.map(({ id }) => id)])).toEqual([
      ['Inside', ['end_', 'a_b', 'a_b_']],
    ]);
    expect(relations).toEqual([
      { from: 'user', to: 'dns', label: 'asks', detail: 'DNS :53', required: true },
      { from: 'dns', to: 'balancer', label: 'browse', detail: 'HTTPS :443', required: true },
      { from: 'balancer', to: 'end_', label: 'browse', detail: 'HTTP :8080', required: true },
      { from: 'end_', to: 'a_b', label: '', detail: 'TCP, all ports', required: true },
      { from: 'a_b', to: 'a_b_', label: '', detail: 'TCP/UDP :80, 90-99', required: true },
    ]);
  });

  // W-001
  it('have a box for each layer', () => {
    const { loose, groups } = drawingOf(model, 'layer');
    expect(loose).toEqual([]);
    expect(groups.map(({ title, elements }) => [title, elements.length])).toEqual([
      ['pods', 3],
      ['external', 3],
    ]);
  });

  it('quote titles in every language', () => {
    const drawing = drawingOf(model, 'zone');
    expect(mermaidC4(drawing)).toContain('System(end_, "Web | tier")');
    expect(mermaidFlowchart(drawing)).toContain('title: "A \\"test\\""');
    expect(dot(drawing)).toContain('digraph "A \\"test\\"" {');
  });
});

// W-002
it('paths are the hops of a flow in order', () => {
  const [way] = pathsOf(model, 'user', 'end');
  expect(way?.hops.map(({ from, to }) => `${from.name} ${to.name}`)).toEqual(['user dns', 'dns balancer', 'balancer end']);
  expect(pathsOf(model, 'end').map(({ flow }) => flow.id)).toEqual(['end-a-b', 'again']);
  expect(pathsOf(model, 'user', 'idle')).toEqual([]);
});

// W-090
it('a decision record says what is gained and lost', () => {
  const change = { change: 'lost', src: 'job', dst: 'ui', protocol: 'TCP', ports: '80' } as const;
  const difference = { changes: [change], onlyBefore: ['a/old'], onlyAfter: [] };
  const record = decisionRecord({ title: 'Close the UI to jobs', date: '2026-01-02', difference });
  expect(record).toContain('# Close the UI to jobs\n\nDate: 2026-01-02\n\nStatus: proposed\n');
  expect(record).toContain('### Reachable from now on\n\nNone.\n');
  const rows = '| Source | Destination | Protocol | Ports |\n| --- | --- | --- | --- |\n| job | ui | TCP | 80 |\n';
  expect(record).toContain(`### No longer reachable\n\n${rows}\n- a/old is gone`);
});
