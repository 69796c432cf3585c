import { create, type DescEnum, type MessageInitShape } from '@bufbuild/protobuf';
import { type MarkName, type Marks, markAnnotation } from '#lib/object-marks.ts';
import {
  AdoptionPolicySchema,
  type ApplyOptions,
  ApplyOptionsSchema,
  ConflictPolicySchema,
  DriftModeSchema,
  RecreatePolicySchema,
} from '#proto/brokkr/v1/content_pb.js';
import type { ObjectPolicySchema } from '#proto/brokkr/v1/explain_pb.js';
import { driftRule } from '../drift/mode.ts';
import type { Engine } from '../engine.ts';
import { judgeRemovals } from '../prune/prune.ts';
import type { Outlook, Subject } from './state.ts';

type Policy = MessageInitShape<typeof ObjectPolicySchema>;

/** What holds without a word of anybody. The broker spells defaults out: an option of that value counts as one. */
const DEFAULTS: Readonly<Record<MarkName | 'adoption', string>> = {
  drift: 'correct',
  conflicts: 'force, but replicas that a scaler set are left to it',
  recreate: 'never',
  prune: 'delete',
  propagation: 'Background',
  adoption: 'adopt',
};

/** The rules in force for an object, each with where it comes from. */
export function policiesOf(engine: Engine, { goal, inventory }: Outlook, subject: Subject, marks: Marks): Policy[] {
  const options = goal.kind === 'target' ? goal.target.options : create(ApplyOptionsSchema);
  const policy = (name: MarkName, option?: Policy): Policy => {
    const mark = marks[name];
    if (mark !== undefined) return { name, value: mark, source: `annotation ${markAnnotation(name)}` };
    return option ?? { name, value: DEFAULTS[name], source: 'default' };
  };
  return [
    policy('drift', driftOption(options, subject)),
    policy('conflicts', option('conflicts', ConflictPolicySchema, options.conflicts)),
    ...yields(options),
    option('adoption', AdoptionPolicySchema, options.adoption) ?? {
      name: 'adoption',
      value: DEFAULTS.adoption,
      source: 'default',
    },
    policy('recreate', option('recreate', RecreatePolicySchema, options.recreate)),
    policy('prune', guard(engine, inventory.entries.size, options, subject)),
    policy('propagation'),
  ];
}

function driftOption(options: ApplyOptions, { object }: Subject): Policy | undefined {
  const rule = driftRule(object, options.driftRules);
  if (rule)
    return {
      name: 'drift',
      value: spelled(DriftModeSchema, rule.mode) ?? DEFAULTS.drift,
      source: `drift_rules ${options.driftRules.indexOf(rule) + 1}`,
    };
  return option('drift', DriftModeSchema, options.drift);
}

function yields({ yieldManagers }: ApplyOptions): Policy[] {
  if (yieldManagers.length === 0) return [];
  return [
    { name: 'conflicts', value: `fields of ${yieldManagers.join(', ')} are left to them`, source: 'option yield_managers' },
  ];
}

/** An option of the stack; undefined when it leaves things as they are. */
function option(name: keyof typeof DEFAULTS, desc: DescEnum, number: number): Policy | undefined {
  const value = spelled(desc, number);
  return value === undefined || value === DEFAULTS[name] ? undefined : { name, value, source: `option ${name}` };
}

/** A value of an enum as the API spells it; undefined when it is not set. */
function spelled(desc: DescEnum, number: number): string | undefined {
  return number === 0 ? undefined : desc.value[number]?.name.slice(desc.sharedPrefix?.length ?? 0).toLowerCase();
}

/** The guard that would keep the object if it alone were to go now, as far as can be told without asking the server. */
function guard(engine: Engine, total: number, options: ApplyOptions, { entry }: Subject): Policy | undefined {
  if (!entry) return undefined;
  const { kept } = judgeRemovals({
    ...{ removals: [entry], total, approvedDeletes: options.approveDeletes, approved: false },
    ...{ ownNamespace: engine.namespace, frozen: undefined, isMoving: () => false },
  });
  const found = kept.get(entry);
  return found && { name: 'prune', value: `kept: ${found.message}`, source: `guard ${found.reason}` };
}
