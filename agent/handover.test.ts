import { describe, expect, it } from 'vitest';
import type { ManifestEntry } from '#lib/object.ts';
import { ManifestKeys } from './handover.ts';

const entry = (kind: string, namespace: string, name: string): ManifestEntry => ({
  ...{ group: '', version: 'v1', kind, namespace, name, objectDigest: '', sourceDigest: '', size: 0, wave: 0, item: 0 },
});
const owned = (kind: string, namespace: string, name: string) => ({
  ...{ group: '', kind, namespace, name, namespaced: namespace !== '' },
});

describe('ManifestKeys', () => {
  const keys = new ManifestKeys(
    [entry('ConfigMap', '', 'plain'), entry('ConfigMap', 'shop', 'named'), entry('Namespace', 'shop', 'web')],
    'apps',
  );

  it('finds an object that names no namespace in the default one only', () => {
    expect(keys.has(owned('ConfigMap', 'apps', 'plain'))).toBe(true);
    expect(keys.has(owned('ConfigMap', 'shop', 'plain'))).toBe(false);
    expect(keys.has(owned('ConfigMap', 'shop', 'named'))).toBe(true);
    expect(keys.has(owned('ConfigMap', 'apps', 'named'))).toBe(false);
  });

  it('finds a cluster-scoped object whatever namespace the manifest names', () => {
    expect(keys.has(owned('Namespace', '', 'web'))).toBe(true);
    expect(keys.has(owned('Namespace', '', 'shop'))).toBe(false);
  });

  it('knows nothing of a text that was not parsed', () => {
    const opaque = new ManifestKeys({ opaqueSourceDigest: '', size: 1 }, 'apps');
    expect(opaque.has(owned('ConfigMap', 'apps', 'plain'))).toBe(false);
  });
});
