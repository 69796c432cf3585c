import type { ObjectKey } from '#lib/object.ts';
import { type ApplyOptions, DriftMode, type DriftRule } from '#proto/brokkr/v1/content_pb.js';
import type { InventoryEntry } from '../inventory/codec.ts';

/** What is done about an object that somebody changed; see the mark `brokkr.io/drift`. */
export type Mode = NonNullable<InventoryEntry['marks']['drift']>;

/** The mode of an object: its mark, else the first rule that fits it, else that of the stack. */
export function driftMode(entry: InventoryEntry, { drift, driftRules }: Pick<ApplyOptions, 'drift' | 'driftRules'>): Mode {
  return entry.marks.drift ?? modeOf(driftRule(entry, driftRules)?.mode ?? drift);
}

/** The first rule that speaks of an object. */
export function driftRule(key: ObjectKey, driftRules: readonly DriftRule[]): DriftRule | undefined {
  return driftRules.find((rule) => fits(rule, key));
}

/** Whether a rule speaks of an object. A rule without a kind speaks of all kinds of all groups. */
function fits({ group, kind, namespace, name }: DriftRule, key: ObjectKey): boolean {
  return (
    (kind === '' || (kind === key.kind && group === key.group)) &&
    (namespace === '' || namespace === key.namespace) &&
    (name === '' || name === key.name)
  );
}

function modeOf(mode: DriftMode): Mode {
  switch (mode) {
    case DriftMode.UNSPECIFIED:
    case DriftMode.CORRECT:
      return 'correct';
    case DriftMode.DETECT:
      return 'detect';
    case DriftMode.OFF:
      return 'off';
    case DriftMode.STRICT:
      return 'strict';
  }
}
