import { create } from '@bufbuild/protobuf';
import { canonicalJson, type Value } from '#lib/object.ts';
import { parseBody } from '#lib/object-body.ts';
import { diff } from '#lib/yaml-diff.ts';
import { type FieldDifference, FieldDifferenceSchema } from '#proto/brokkr/v1/explain_pb.js';
import { type FieldPath, paths, pathText, valueAt } from '../apply/managed-fields.ts';
import type { PlannedObject } from '../apply/plan.ts';
import { fieldsOf, ownEntry } from '../apply/takeover.ts';
import { fingerprint, samePrint } from '../drift/drift.ts';
import { changedFields, type FieldChange } from '../drift/fields.ts';
import type { InventoryEntry } from '../inventory/codec.ts';
import type { KubeObject } from '../kube/objects.ts';

/** Differences told of one object. */
const MAX_DIFFERENCES = 100;
const MAX_VALUE_LENGTH = 200;

/** What is compared. */
export interface Compared {
  readonly wanted: PlannedObject;
  /** Of a Secret the metadata only. */
  readonly live: KubeObject;
  readonly entry: InventoryEntry | undefined;
  readonly fieldManager: string;
}

/**
 * Fields that differ, of those that we want or own. What is ours as we applied it differs in its spelling at most, and is left out. Of a
 * Secret ownership alone tells, so that no live value is needed.
 */
export function differences({ wanted, live, entry, fieldManager }: Compared): FieldDifference[] {
  const desired = parseBody(wanted.json);
  const isSecret = wanted.kind === 'Secret' && wanted.group === '';
  const { metadata } = live;
  const there = isSecret ? desired : (live as unknown as Value);
  const { print } = entry ?? {};
  const isOurs = print !== undefined && entry?.digest === wanted.digest && samePrint(print, fingerprint(metadata, fieldManager));
  const changes = changedFields(desired, there, metadata, fieldManager).filter(({ lost }) => lost || !isOurs);
  const found = changes.flatMap((change) => (isSecret ? [secret(change)] : texts(change)));
  const own = fieldsOf(ownEntry(metadata, fieldManager));
  for (const path of paths(own)) {
    if (found.length >= MAX_DIFFERENCES) break;
    if (valueAt(desired, path) !== undefined) continue;
    found.push(extra(path, isSecret ? undefined : valueAt(live as unknown as Value, path)));
  }
  return found.slice(0, MAX_DIFFERENCES);
}

/** A field of a Secret that we no longer own: somebody changed or removed it. */
function secret({ path, owners }: FieldChange): FieldDifference {
  return create(FieldDifferenceSchema, { path, difference: owners.length > 0 ? 'changed' : 'missing' });
}

/** What differs below one field. */
function texts({ path, wanted, live }: FieldChange): FieldDifference[] {
  if (live === undefined) return [create(FieldDifferenceSchema, { path, difference: 'missing', wanted: cut(wanted) })];
  const changes = diff({ before: canonicalJson(wanted), after: canonicalJson(live), secret: false });
  return changes.map(({ path: below, kind, before, after }) =>
    create(FieldDifferenceSchema, {
      path: `${path}${below.split('/').slice(1).map(elementText).join('')}`,
      difference: KINDS[kind],
      ...(before !== undefined && { wanted: before }),
      ...(after !== undefined && { live: after }),
    }),
  );
}

const KINDS = { added: 'extra', removed: 'missing', changed: 'changed' } as const;

/** An element of a JSON pointer as field paths are written. */
function elementText(element: string): string {
  const name = element.replaceAll('~1', '/').replaceAll('~0', '~');
  if (/^\d+$/.test(name)) return `[${name}]`;
  return name.startsWith('[') ? name : `.${name}`;
}

/** A field we set once and no longer want. */
function extra(path: FieldPath, live: Value | undefined): FieldDifference {
  return create(FieldDifferenceSchema, {
    path: pathText(path),
    difference: 'extra',
    ...(live !== undefined && { live: cut(live) }),
  });
}

function cut(value: Value): string {
  const text = canonicalJson(value);
  return text.length > MAX_VALUE_LENGTH ? `${text.slice(0, MAX_VALUE_LENGTH)}…` : text;
}
