import { describe, expect, it } from 'vitest';
import { compile } from '../../flows/compile/compile.ts';
import { policyText } from '../../flows/compile/policy-text.ts';
import { dot } from '../../flows/emit/dot.ts';
import { drawingOf } from '../../flows/emit/drawing.ts';
import { flowTable } from '../../flows/emit/flow-tables.ts';
import { mermaidC4, mermaidFlowchart } from '../../flows/emit/mermaid.ts';
import { svg } from '../../flows/emit/svg.ts';
import { csvTable, markdownTable } from '../../flows/emit/text-table.ts';
import { emitAws } from '../../flows/firewall/aws.ts';
import { emitAzure } from '../../flows/firewall/azure.ts';
import { emitGcp } from '../../flows/firewall/gcp.ts';
import { hostTable } from '../../flows/firewall/host-table.ts';
import { emitNftables } from '../../flows/firewall/nftables.ts';
import { firewallOf } from '../../flows/firewall/rules.ts';
import { exampleModel, examplePath } from './flow-rig.ts';

/** What has to be open at least, with the way through the ingress. */
const MINIMUM = { without: ['metrics', 'otlp'], with: ['external-broker'] };

async function matchesFile(text: string, file: string): Promise<void> {
  await expect(text).toMatchFileSnapshot(examplePath('brokkr', `golden/${file}`));
}

function json(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}

describe('the flows of Brokkr', () => {
  // N-020 … N-029
  it('are the ten rows of the connection matrix', async () => {
    const table = flowTable(await exampleModel('brokkr'), 'matrix');
    expect(table.rows).toHaveLength(10);
    await matchesFile(markdownTable(table), 'matrix.md');
    await matchesFile(csvTable(table), 'matrix.csv');
  });

  // N-030
  it.each([
    ['webhooks', ['Broker Webhook endpoints']],
    ['metrics', ['Prometheus Broker', 'Prometheus Agent']],
    ['otlp', ['Broker OTLP Collector', 'Agent OTLP Collector']],
  ])('lack exactly the rows of %s without it', async (feature, missing) => {
    const rows = async (without: readonly string[]) =>
      flowTable(await exampleModel('brokkr', { without }), 'matrix').rows.map(([from, to]) => `${from} ${to}`);
    const without = await rows([feature]);
    expect((await rows([])).filter((row) => !without.includes(row))).toEqual(missing);
    expect(without).toHaveLength(10 - missing.length);
  });

  // N-005, N-006
  it('are drawn as the topology, in every language', async () => {
    const model = await exampleModel('brokkr', { without: ['metrics'] });
    expect([...model.zones.keys()]).toEqual(['external', 'broker-cluster', 'target-cluster']);
    const drawing = drawingOf(model, 'zone');
    expect(drawing.relations).toHaveLength(9);
    await matchesFile(mermaidC4(drawing), 'topology-c4.mmd');
    await matchesFile(mermaidFlowchart(drawing), 'topology.mmd');
    await matchesFile(dot(drawing), 'topology.dot');
    await matchesFile(svg(drawing), 'topology.svg');
  });

  // N-130, N-131
  it.each(['broker', 'agent'])('are the firewall table of the %s host', async (host) => {
    await matchesFile(markdownTable(hostTable(await exampleModel('brokkr', MINIMUM), host)), `host-${host}.md`);
  });

  // N-132, N-133, N-134, N-135
  it('are firewalls of the broker host', async () => {
    const firewall = firewallOf(await exampleModel('brokkr', MINIMUM), 'broker');
    await matchesFile(json(emitAws(firewall).document), 'broker-aws.json');
    await matchesFile(json(emitGcp(firewall).document), 'broker-gcp.json');
    await matchesFile(json(emitAzure(firewall).document), 'broker-azure.json');
    await matchesFile(emitNftables(firewall).document, 'broker.nft');
  });

  // N-041, N-123
  it('are policies: one port into the broker', async () => {
    const { objects } = compile(await exampleModel('brokkr'));
    const broker = objects.find(({ metadata }) => metadata.name.endsWith('broker'));
    if (!broker || !('ingress' in broker.spec)) throw new Error('no policy for the broker');
    expect(new Set(broker.spec.ingress?.flatMap(({ ports }) => ports.map(({ port }) => port)))).toEqual(new Set([3000]));
    await matchesFile(policyText(objects), 'policies.yaml');
  });
});
