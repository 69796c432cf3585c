import { checkSelector as checkLabelSelector, SELECTOR_SHAPE } from '#flows/evaluate/label-selector.ts';
import { decode } from '#flows/evaluate/shape.ts';
import type { Value } from '#lib/object.ts';
import { type SelectorSpec, selectorOf } from './flowset.ts';

/** Takes a problem of the part at a path. */
export type Report = (path: readonly (string | number)[], message: string) => void;

/** Checks a selector as the API server does; a list of values may not be empty. */
export function checkSelector(spec: SelectorSpec, report: Report): void {
  const selector = selectorOf(spec);
  let readable = true;
  const tell = (pointer: string, message: string) => {
    const path = pointer
      .split('/')
      .slice(1)
      .map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'));
    report(selector === spec ? path : path.slice(1), message);
  };
  decode(selector as Value, SELECTOR_SHAPE, '', (pointer, message) => {
    readable = false;
    tell(pointer, message);
  });
  if (readable) checkLabelSelector(selector, '', tell);
}
