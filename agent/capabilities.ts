import type { Resource } from './kube/resource.ts';

/** Pairs of key and value that the broker takes of one agent (the contract's limit). */
export const MAX_CAPABILITIES = 256;

/** `key=value` texts of the settings as pairs. */
export function configuredCapabilities(texts: readonly string[]): Record<string, string> {
  return Object.fromEntries(texts.map((text) => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]));
}

/**
 * What the API server serves, for selectors: `api:GROUP/VERSION` (core: `api:VERSION`) and `kind:GROUP/KIND` (core:
 * `kind:KIND`) with the version the server prefers. At most `max` pairs, versions before kinds, each in the order of their
 * names; `kinds_truncated` then says how many found no room, so that nobody takes them for absent.
 */
export function servedCapabilities(resources: readonly Resource[], max: number): Record<string, string> {
  const apis = new Map<string, string>();
  const kinds = new Map<string, string>();
  for (const { group, version, kind } of resources) {
    const prefix = group === '' ? '' : `${group}/`;
    apis.set(`api:${prefix}${version}`, 'served');
    const key = `kind:${prefix}${kind}`;
    if (kind !== '' && !kinds.has(key)) kinds.set(key, version); // the preferred version of a group comes first
  }
  const byName = (pairs: ReadonlyMap<string, string>) => [...pairs].toSorted(([a], [b]) => (a < b ? -1 : 1));
  const pairs = [...byName(apis), ...byName(kinds)];
  if (pairs.length <= max) return Object.fromEntries(pairs);
  return { ...Object.fromEntries(pairs.slice(0, max - 1)), kinds_truncated: String(pairs.length - max + 1) };
}
