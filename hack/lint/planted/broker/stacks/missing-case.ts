// reports: lint/nursery/useExhaustiveSwitchCases
// @ts-nocheck: never compiled, only linted

/** How it ended. */
export type End = 'drained' | 'lost';

/** Forgets a case. */
export function redialMs(end: End): number {
  switch (end) {
    case 'drained':
      return 0;
  }
  return 1000;
}
