import type { FlowSpec } from './flowset.ts';

/** A template: flows in which `$name` stands for a parameter, and the ids for that of the declaration with something behind. */
interface Template {
  readonly parameters: readonly string[];
  readonly flows: readonly (Omit<FlowSpec, 'id'> & { readonly suffix: string })[];
}

/** The four categories of policies that platforms start with (W-022). */
const TEMPLATES: Readonly<Record<string, Template>> = {
  'tier-ingress': {
    parameters: ['tier', 'from', 'ports'],
    flows: [{ suffix: '', from: '$from', to: '$tier', ports: '$ports' }],
  },
  'tier-egress': {
    parameters: ['tier', 'to', 'ports'],
    flows: [{ suffix: '', from: '$tier', to: '$to', ports: '$ports' }],
  },
  // the zone denies what crosses its border; this allows what stays inside
  'isolate-namespace': {
    parameters: ['pods'],
    flows: [{ suffix: '', from: '$pods', to: '$pods', ports: 'all' }],
  },
  'platform-access': {
    parameters: ['pods', 'monitoring', 'metricsPorts', 'logging', 'loggingPorts'],
    flows: [
      { suffix: '-metrics', from: '$monitoring', to: '$pods', ports: '$metricsPorts', kind: 'metrics' },
      { suffix: '-logs', from: '$pods', to: '$logging', ports: '$loggingPorts', kind: 'system' },
    ],
  },
};

/** The flows of a declaration: itself, or those of its template. A text says what is wrong. */
export function expandTemplate(declared: FlowSpec): readonly FlowSpec[] | string {
  const { template: name, with: given = {}, ...rest } = declared;
  if (name === undefined) return declared.with === undefined ? [declared] : 'with goes with a template';
  const template = TEMPLATES[name];
  if (!template) return `there is no template ${name}`;
  const missing = template.parameters.filter((parameter) => !(parameter in given));
  const unknown = Object.keys(given).filter((parameter) => !template.parameters.includes(parameter));
  if (missing.length > 0) return `template ${name} needs with.${missing.join(', with.')}`;
  if (unknown.length > 0)
    return `template ${name} has no parameter ${unknown.join(', ')}, known are ${template.parameters.join(', ')}`;
  const twice = ['from', 'to', 'ports'].filter((field) => field in rest);
  if (twice.length > 0) return `template ${name} says ${twice.join(', ')}; give its parameters in with`;
  return template.flows.map(({ suffix, ...flow }) => {
    const filled = Object.entries(flow).map(([field, value]) => [field, isParameter(value) ? given[value.slice(1)] : value]);
    return { ...Object.fromEntries(filled), ...rest, id: `${declared.id}${suffix}` };
  });
}

function isParameter(value: unknown): value is string {
  return typeof value === 'string' && value.startsWith('$');
}
