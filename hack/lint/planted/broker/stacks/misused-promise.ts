// reports: lint/nursery/noMisusedPromises
// @ts-nocheck: never compiled, only linted

async function ready(): Promise<boolean> {
  return true;
}

/** A promise is always truthy. */
export function start(): string {
  if (ready()) return 'yes';
  return 'no';
}
