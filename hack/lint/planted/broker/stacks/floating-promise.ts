// reports: lint/nursery/noFloatingPromises
// @ts-nocheck: never compiled, only linted

async function work(): Promise<void> {}

/** Starts work that nobody owns. */
export function start(): void {
  work();
}
