import { describe, expect, it } from 'vitest';
import type { ManifestEntry } from '#lib/object.ts';
import { manifestHas } from './handover.ts';

const entry = (kind: string, namespace: string, name: string): ManifestEntry => ({
  ...{ group: '', version: 'v1', kind, namespace, name, objectDigest: '', sourceDigest: '', size: 0, wave: 0, item: 0 },
});
const owned = (kind: string, namespace: string, name: string) => ({
  ...{ group: '', kind, namespace, name, namespaced: namespace !== '' },
});

describe('manifestHas', () => {
  const manifest = [
    entry('ConfigMap', '', 'plain'),
    entry('ConfigMap', 'shop', 'named'),
    entry('Namespace', '', 'shop'),
    entry('Namespace', 'shop', 'web'),
  ];
  const has = (object: ReturnType<typeof owned>) => manifestHas(manifest, object, 'apps');

  it('finds an object that names no namespace in the default one only', () => {
    expect(has(owned('ConfigMap', 'apps', 'plain'))).toBe(true);
    expect(has(owned('ConfigMap', 'shop', 'plain'))).toBe(false);
    expect(has(owned('ConfigMap', 'shop', 'named'))).toBe(true);
    expect(has(owned('ConfigMap', 'apps', 'named'))).toBe(false);
    expect(has(owned('Secret', 'shop', 'named'))).toBe(false);
  });

  it('finds a cluster-scoped object whatever namespace the manifest names', () => {
    expect(has(owned('Namespace', '', 'shop'))).toBe(true);
    expect(has(owned('Namespace', '', 'web'))).toBe(true);
    expect(has(owned('Namespace', '', 'named'))).toBe(false);
  });

  it('knows nothing of a text that was not parsed', () => {
    expect(manifestHas({ opaqueSourceDigest: '', size: 1 }, owned('ConfigMap', 'apps', 'plain'), 'apps')).toBe(false);
  });
});
