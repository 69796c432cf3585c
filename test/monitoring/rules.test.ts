import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { ALERTS } from '../../hack/monitoring/alerts.ts';
import { DASHBOARDS } from '../../hack/monitoring/dashboards.ts';
import { prometheusProgram, promtool, promtoolOn } from './promtool.ts';
import { FIRING, QUIET, type Series } from './series.ts';

const FILES = ['brokkr-broker', 'brokkr-agent'].map((chart) => resolve(`deploy/charts/${chart}/alerts.yaml`));
const alerts = Object.values(ALERTS).flat();

beforeAll(async () => void (await prometheusProgram('promtool'))); // the machine's first use takes a minute

/** A unit test (prometheus.io, "Unit testing for rules"): what fires on these series after three hours. */
function evaluation(series: Series, wanted: Readonly<Record<string, boolean>>): object {
  const present = Object.entries(series).filter(([, values]) => values !== '');
  return {
    interval: '1m',
    input_series: present.map(([labels, values]) => ({ series: labels, values })),
    promql_expr_test: Object.entries(wanted).map(([name, fires]) => ({
      expr: `count(ALERTS{alertname="${name}", alertstate="firing"}) or vector(0)`,
      eval_time: '3h',
      exp_samples: [{ labels: '{}', value: fires ? 1 : 0 }],
    })),
  };
}

const evaluate = (tests: readonly object[]) =>
  promtoolOn(['test', 'rules'], { rule_files: FILES, evaluation_interval: '5m', tests });

describe('the alert rules', () => {
  it('are valid', async () => {
    expect(await promtool(['check', 'rules', ...FILES])).toMatchObject({ code: 0 });
  });

  it('let none fire in a healthy fleet', async () => {
    const quiet = evaluation(QUIET, Object.fromEntries(alerts.map(({ name }) => [name, false])));
    expect(await evaluate([quiet])).toMatchObject({ code: 0 });
  });

  it('let each fire when it should', { timeout: 120_000 }, async () => {
    expect(Object.keys(FIRING).toSorted()).toEqual(alerts.map(({ name }) => name).toSorted());
    const tests = Object.entries(FIRING).map(([name, series]) => evaluation({ ...QUIET, ...series }, { [name]: true }));
    expect(await evaluate(tests)).toMatchObject({ code: 0 });
  });

  it('lead to a section of the page about alerts', async () => {
    const page = await readFile('docs/alerts.md', 'utf8');
    for (const { name } of alerts) expect(page).toContain(`\n## ${name}\n`);
  });
});

describe('the dashboards', () => {
  it('have titles and ids of their own, and queries that can be parsed', async () => {
    expect(new Set(DASHBOARDS.map(({ uid }) => uid)).size).toBe(DASHBOARDS.length);
    const queries = DASHBOARDS.flatMap(({ rows }) => rows.flatMap(({ panels }) => panels.flatMap((panel) => panel.queries)));
    const rules = queries.map(([expr], index) => ({ record: `panel:${index}`, expr: expr.replaceAll('$__rate_interval', '5m') }));
    expect(await promtoolOn(['check', 'rules'], { groups: [{ name: 'panels', rules }] })).toMatchObject({ code: 0 });
    expect(queries.length).toBeGreaterThan(80);
  });
});
