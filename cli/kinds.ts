/** What `brokkr get` can list. */
export const KINDS = ['agents', 'generators', 'stacks', 'deployments', 'events', 'keys'] as const;

/** One of them. */
export type Kind = (typeof KINDS)[number];
