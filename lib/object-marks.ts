import { isMapping, type ValueObject } from './object.ts';

/** Annotations `brokkr.io/<name>` by which an object says how it is to be treated, with the values each may have. */
export const MARKS = {
  /** What happens when the object leaves its stack. */
  prune: ['never', 'orphan'],
  /** How it is deleted; Background unless marked. */
  propagation: ['Background', 'Foreground', 'Orphan'],
  /** What happens when somebody changes it; goes before the options of the stack. */
  drift: ['correct', 'detect', 'off', 'strict'],
  /** Whether it may be deleted and created anew when a field that cannot be changed has to; goes before the options. */
  recreate: ['never', 'immutable'],
  /** What happens when a field belongs to another field manager; goes before the options. */
  conflicts: ['force', 'yield', 'fail'],
} as const;

/** A mark by name. */
export type MarkName = keyof typeof MARKS;

/** The marks of one object; what is not there was not marked. */
export type Marks = { readonly [Name in MarkName]?: (typeof MARKS)[Name][number] };

/** The annotation of a mark. */
export function markAnnotation(name: MarkName): string {
  return `brokkr.io/${name}`;
}

/** Reads the marks of an object; `refuse` is told of values that mean nothing, which are left out. */
export function readMarks(
  metadata: ValueObject,
  refuse: (annotation: string, allowed: readonly string[]) => void = () => undefined,
): Marks {
  const { annotations } = metadata;
  if (!isMapping(annotations)) return {};
  const marks: Partial<Record<MarkName, string>> = {};
  for (const name of Object.keys(MARKS) as MarkName[]) {
    const value = annotations[markAnnotation(name)];
    if (typeof value !== 'string') continue;
    const allowed: readonly string[] = MARKS[name];
    if (allowed.includes(value)) marks[name] = value;
    else refuse(markAnnotation(name), allowed);
  }
  return marks as Marks;
}
