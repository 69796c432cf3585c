import { checkFlowSet } from './check.ts';
import { type FlowProblem, FlowSetError, readDocument } from './document.ts';
import schema from './flowset.schema.json' with { type: 'json' };
import type { FlowSet, FlowSetFile, FlowSetSpec, PlacedFlow } from './flowset.ts';
import { expandTemplate } from './templates.ts';

/**
 * Reads a flow set. Throws `FlowSetError` with everything that is wrong in it whatever the profile and the cluster; what depends on them
 * is told by `resolve`. `file` names it in messages.
 */
export function loadFlowSet(text: string, file: string): FlowSet {
  const { value, at } = readDocument<FlowSetFile>(text, file, schema);
  const { spec } = value;
  const { flows, problems } = expand(spec, at);
  const profiles = spec.profiles ?? profilesOf(spec);
  problems.push(...checkFlowSet(spec, flows, profiles, at));
  if (problems.length > 0) throw new FlowSetError(problems);
  const features = flows.flatMap(({ flow }) => flow.feature ?? []);
  return { name: value.metadata.name, spec, flows, profiles, features: [...new Set(features)], at };
}

function expand(spec: FlowSetSpec, at: FlowSet['at']): { flows: PlacedFlow[]; problems: FlowProblem[] } {
  const flows: PlacedFlow[] = [];
  const problems: FlowProblem[] = [];
  for (const [index, declared] of spec.flows.entries()) {
    const path = ['flows', index];
    const expanded = expandTemplate(declared);
    if (typeof expanded === 'string') problems.push({ place: at('spec', ...path), message: `flow ${declared.id}: ${expanded}` });
    else flows.push(...expanded.map((flow) => ({ flow: flow as PlacedFlow['flow'], path })));
  }
  return { flows, problems };
}

function profilesOf({ flows, endpoints }: FlowSetSpec): string[] {
  const used = [
    ...flows.flatMap(({ profiles = [] }) => profiles),
    ...Object.values(endpoints).flatMap(({ profiles = {} }) => Object.keys(profiles)),
  ];
  return used.length === 0 ? [] : [...new Set(['production', ...used])];
}
