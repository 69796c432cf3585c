import { describe, expect, it } from 'vitest';
import { drawingOf } from '../../flows/emit/drawing.ts';
import { flowTable } from '../../flows/emit/flow-tables.ts';
import { svg } from '../../flows/emit/svg.ts';
import { markdownTable } from '../../flows/emit/text-table.ts';
import { firewallOf, flowIds } from '../../flows/firewall/rules.ts';
import { exampleModel, examplePath } from './flow-rig.ts';

describe("Verrazzano's documented traffic", () => {
  // V-020 … V-025, V-040, V-050
  it.each([
    ['north-south-ingress', 8],
    ['north-south-egress', 7],
    ['east-west', 15],
    ['scrape', 19],
    ['webhooks', 6],
    ['inventory', 18],
    ['multicluster', 6],
  ])('has the rows and words of the table %s', async (name, rows) => {
    const table = flowTable(await exampleModel('verrazzano'), name);
    expect(table.rows).toHaveLength(rows);
    await expect(markdownTable(table)).toMatchFileSnapshot(examplePath('verrazzano', `golden/${name}.md`));
  });

  // V-023
  it('lists what it assumes apart: name resolution for every pod, the control plane of the mesh', async () => {
    const model = await exampleModel('verrazzano');
    const implicit = model.flows.filter((flow) => flow.implicit);
    const pods = [...model.endpoints.values()].filter(({ peer }) => peer.kind === 'pods').map(({ name }) => name);
    expect(implicit.filter(({ to }) => to === 'dns').map(({ from }) => from)).toEqual(pods);
    expect(implicit.filter(({ to }) => to === 'istiod')).toHaveLength(14);
    expect(flowTable(model, 'matrix').rows).toHaveLength(model.flows.length - implicit.length);
  });

  // V-024
  it('scrapes the mesh with HTTPS and what is outside of it with HTTP', async () => {
    const { flows } = await exampleModel('verrazzano');
    const scraped = flows.filter(({ tables }) => tables.includes('scrape'));
    const plain = scraped.filter(({ application }) => application === 'HTTP').map(({ purpose }) => purpose);
    expect(plain).toEqual(['Istio control plane metrics.', 'NGINX metrics.', 'Node metrics.', 'Prometheus metrics.']);
  });

  // V-050
  it('needs one inbound rule with two kinds of flow at a managed cluster, and none when managed clusters open the connections', async () => {
    const inbound = async (features: { readonly with?: readonly string[]; readonly without?: readonly string[] }) => {
      const { rules } = firewallOf(await exampleModel('verrazzano', features), 'managed');
      return rules.filter(({ direction }) => direction === 'inbound');
    };
    const [rule, ...others] = await inbound({});
    expect(others).toEqual([]);
    expect(rule && [rule.ports, flowIds(rule)]).toEqual([[{ first: 443, last: 443 }], ['federated-metrics', 'federated-api']]);
    expect(await inbound({ with: ['tunnel'], without: ['admin-opens'] })).toEqual([]);
  });

  it('can be drawn whole', async () => {
    const picture = svg(drawingOf(await exampleModel('verrazzano'), 'layer'));
    await expect(picture).toMatchFileSnapshot(examplePath('verrazzano', 'golden/layers.svg'));
  });
});
