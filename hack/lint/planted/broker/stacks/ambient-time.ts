// reports: plugin
// @ts-nocheck: never compiled, only linted

/** Time that a test cannot turn. */
export function stamp(): number {
  return Date.now();
}
