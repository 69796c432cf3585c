import type { LabelSelector } from '#flows/model/model.ts';
import { jsonPointer } from '#lib/yaml-problems.ts';
import type { ReportField, Shape } from './shape.ts';

/** Labels of a pod, a namespace or a node. */
export type Labels = Readonly<Record<string, string>>;

/** A selector as the decoder takes it. */
export const SELECTOR_SHAPE: Shape = {
  fields: {
    matchLabels: { mapOf: 'text' },
    matchExpressions: { listOf: { fields: { key: 'text', operator: 'text', values: { listOf: 'text' } } } },
  },
};

const NAME = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

/** Whether labels satisfy all of a selector (`metav1.LabelSelectorAsSelector`); an empty selector is satisfied by all labels. */
export function selects(selector: LabelSelector, labels: Labels): boolean {
  for (const [key, value] of Object.entries(selector.matchLabels ?? {})) if (labelOf(labels, key) !== value) return false;
  return (selector.matchExpressions ?? []).every((expression) => satisfies(expression, labels));
}

function satisfies({ key, operator, values = [] }: Expression, labels: Labels): boolean {
  const value = labelOf(labels, key);
  switch (operator) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
  }
}

/** Whether the selector selects everything. */
export function isEmptySelector(selector: LabelSelector): boolean {
  return Object.keys(selector.matchLabels ?? {}).length === 0 && (selector.matchExpressions ?? []).length === 0;
}

/** Keys of labels that decide whether the selector is satisfied. */
export function selectorKeys(selector: LabelSelector): string[] {
  return [...Object.keys(selector.matchLabels ?? {}), ...(selector.matchExpressions ?? []).map(({ key }) => key)];
}

/** The selector as kubectl writes one: `app=web,tier in (a,b),!legacy`; `everything` when it is empty. */
export function selectorText(selector: LabelSelector): string {
  const parts = Object.entries(selector.matchLabels ?? {}).map(([key, value]) => `${key}=${value}`);
  for (const { key, operator, values = [] } of selector.matchExpressions ?? []) {
    if (operator === 'Exists') parts.push(key);
    else if (operator === 'DoesNotExist') parts.push(`!${key}`);
    else parts.push(`${key} ${operator === 'In' ? 'in' : 'notin'} (${values.join(',')})`);
  }
  return parts.length === 0 ? 'everything' : parts.join(',');
}

/** Reports what the API server refuses in a decoded selector (`ValidateLabelSelector`). */
export function checkSelector(selector: LabelSelector, path: string, report: ReportField): void {
  for (const [key, value] of Object.entries(selector.matchLabels ?? {})) {
    const place = path + jsonPointer('matchLabels', key);
    if (!isQualifiedName(key)) report(place, 'the key is no label key: [prefix/]name, name at most 63 of A-Z a-z 0-9 - _ .');
    if (!isLabelValue(value)) report(place, LABEL_VALUE);
  }
  for (const [index, expression] of (selector.matchExpressions ?? []).entries()) {
    checkExpression(expression, `${path}/matchExpressions/${index}`, report);
  }
}

type Expression = NonNullable<LabelSelector['matchExpressions']>[number];

function checkExpression({ key = '', operator, values = [] }: Partial<Expression>, path: string, report: ReportField): void {
  if (operator === 'In' || operator === 'NotIn') {
    if (values.length === 0) report(`${path}/values`, `values are required with ${operator}`);
  } else if (operator === 'Exists' || operator === 'DoesNotExist') {
    if (values.length > 0) report(`${path}/values`, `values may not be given with ${operator}`);
  } else report(`${path}/operator`, 'must be In, NotIn, Exists or DoesNotExist');
  if (!isQualifiedName(key)) report(`${path}/key`, 'must be a label key: [prefix/]name, name at most 63 of A-Z a-z 0-9 - _ .');
  for (const [at, value] of values.entries()) if (!isLabelValue(value)) report(`${path}/values/${at}`, LABEL_VALUE);
}

const LABEL_VALUE = 'the value must be at most 63 of A-Z a-z 0-9 - _ . and begin and end with a letter or digit';

/** Whether the text is a key of a label or of an annotation: `[prefix/]name`. */
export function isQualifiedName(text: string): boolean {
  const parts = text.split('/');
  const name = parts.pop() ?? '';
  const [prefix] = parts;
  if (parts.length > 1 || name.length > 63 || !NAME.test(name)) return false;
  return prefix === undefined || (prefix.length <= 253 && SUBDOMAIN.test(prefix));
}

/** Whether the text can be the value of a label. */
export function isLabelValue(text: string): boolean {
  return text === '' || (text.length <= 63 && NAME.test(text));
}

function labelOf(labels: Labels, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}
