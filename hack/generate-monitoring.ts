import { dump } from 'js-yaml';
import type { Alert, MonitoredChart } from './monitoring/alert.ts';
import { ALERTS } from './monitoring/alerts.ts';
import { DASHBOARDS } from './monitoring/dashboards.ts';
import type { Dashboard, Panel } from './monitoring/panel.ts';

/** Where runbooks are; the charts put `metrics.prometheusRule.runbookUrl` in its place. */
const RUNBOOKS = 'https://brokkr.example.com/docs/alerts.md';
// biome-ignore lint/suspicious/noTemplateCurlyInString: Grafana fills this in
const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };
/** The JSON model of Grafana 12 (grafana.com, "Dashboard JSON model"); newer ones migrate it. */
const SCHEMA_VERSION = 41;
const COLUMNS = 24;
const PANEL_WIDTH = 8;
const PANEL_HEIGHT = 8;

/** Dashboards and rules of the charts, and the pages about them. */
export async function generateMonitoring(): Promise<ReadonlyMap<string, string>> {
  const charts = Object.keys(ALERTS) as MonitoredChart[];
  return new Map([
    ...DASHBOARDS.map((dashboard): [string, string] => [
      `deploy/charts/${dashboard.chart}/dashboards/${dashboard.uid}.json`,
      `${JSON.stringify(dashboardJson(dashboard), null, 2)}\n`,
    ]),
    ...charts.map((chart): [string, string] => [`deploy/charts/${chart}/alerts.yaml`, dump(rules(chart), { lineWidth: -1 })]),
    ['docs/alerts.md', alertsPage(charts)],
    ['docs/reference/dashboards.md', dashboardsPage()],
  ]);
}

function dashboardJson({ uid, title, purpose, rows }: Dashboard): object {
  let y = 0;
  let id = 0;
  const panels = rows.flatMap((row) => {
    const head = {
      type: 'row',
      id: ++id,
      title: row.title,
      collapsed: false,
      panels: [],
      gridPos: { x: 0, y: y++, w: COLUMNS, h: 1 },
    };
    const perLine = COLUMNS / PANEL_WIDTH;
    const graphs = row.panels.map((panel, index) => ({
      ...panelJson(panel),
      id: ++id,
      gridPos: {
        x: (index % perLine) * PANEL_WIDTH,
        y: y + Math.floor(index / perLine) * PANEL_HEIGHT,
        w: PANEL_WIDTH,
        h: PANEL_HEIGHT,
      },
    }));
    y += Math.ceil(graphs.length / perLine) * PANEL_HEIGHT;
    return [head, ...graphs];
  });
  const datasource = { name: 'datasource', type: 'datasource', query: 'prometheus', label: 'Data source', current: {}, hide: 0 };
  return {
    ...{ uid, title, description: purpose, tags: ['brokkr'], schemaVersion: SCHEMA_VERSION, version: 1, editable: true },
    ...{ time: { from: 'now-3h', to: 'now' }, refresh: '30s', timezone: 'browser', graphTooltip: 1 },
    templating: { list: [datasource] },
    annotations: { list: [] },
    links: [{ type: 'dashboards', title: 'Brokkr', tags: ['brokkr'], asDropdown: true, keepTime: true }],
    panels,
  };
}

function panelJson({ title, unit, queries }: Panel): object {
  const targets = queries.map(([expr, legendFormat], index) => {
    return { refId: String.fromCharCode('A'.charCodeAt(0) + index), datasource: DATASOURCE, expr, legendFormat, range: true };
  });
  return {
    ...{ type: 'timeseries', title, datasource: DATASOURCE, targets },
    fieldConfig: { defaults: { unit, custom: { fillOpacity: 10, showPoints: 'never' } }, overrides: [] },
    options: { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi', sort: 'desc' } },
  };
}

/** A rule file of Prometheus; also the spec of a PrometheusRule. */
function rules(chart: MonitoredChart): object {
  const rule = ({ name, expr, for: held, severity, summary, meaning }: Alert) => ({
    alert: name,
    expr,
    for: held,
    labels: { severity },
    annotations: { summary, description: meaning, runbook_url: `${RUNBOOKS}#${name.toLowerCase()}` },
  });
  return { groups: [{ name: chart, rules: ALERTS[chart].map(rule) }] };
}

function alertsPage(charts: readonly MonitoredChart[]): string {
  const alerts = charts.flatMap((chart) => ALERTS[chart]);
  const rows = alerts.map(({ name, severity, meaning }) => `| [${name}](#${name.toLowerCase()}) | ${severity} | ${meaning} |`);
  const section = ({ name, expr, for: held, severity, meaning, look, action }: Alert) => `## ${name}

\`${expr}\`${held === '0m' ? '' : `, for ${held}`} (${severity})

| | |
|---|---|
| What it means | ${meaning} |
| What to look at | ${look.replaceAll('|', '\\|')} |
| What to do | ${action.replaceAll('|', '\\|')} |
`;
  return `# Alerts

Generated from \`hack/monitoring\`. The charts install them with \`metrics.prometheusRule.enabled\` (those of the gateway come with the
broker's chart); without the Prometheus operator take \`alerts.yaml\` of each chart as a rule file. critical: somebody gets up; warning: in
working hours. Panels: [dashboards](reference/dashboards.md).

| Alert | Severity | Meaning |
|---|---|---|
${rows.join('\n')}

${alerts.map((alert) => section(alert)).join('\n')}`;
}

function dashboardsPage(): string {
  const sections = DASHBOARDS.map(({ title, purpose, chart, uid, rows }) => {
    const lines = rows.flatMap((row) =>
      row.panels.map(({ title: name, queries }) => {
        const cells = queries.map(([expr]) => `\`${expr.replaceAll('|', '\\|')}\``);
        return `| ${row.title} | ${name} | ${cells.join('<br>')} |`;
      }),
    );
    return `## ${title}

For ${purpose}. \`${uid}.json\` of the chart ${chart}.

| Row | Panel | Queries |
|---|---|---|
${lines.join('\n')}
`;
  });
  return `# Dashboards

Generated from \`hack/monitoring/dashboards.ts\`. How to install them: [monitoring](../monitoring.md).

${sections.join('\n')}`;
}
