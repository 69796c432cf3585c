// reports: lint/suspicious/noConsole
// @ts-nocheck: never compiled, only linted

/** Bypasses the log. */
export function say(): void {
  console.log('hello');
}
