import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { DriftMode, OnFailure } from '#proto/brokkr/v1/content_pb.js';
import { readOptions } from './stack-options.ts';

describe('options of a stack', () => {
  it('come from a file and from single ones that win over it, spelled as in REST', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'brokkr-options-'));
    try {
      const file = join(folder, 'options.yaml');
      await writeFile(
        file,
        'drift: detect\non_failure: rollback\nignore:\n- {group: apps, kind: Deployment, paths: [/spec/replicas]}\n',
      );
      const given = await readOptions({
        options: file,
        option: { drift: 'off', yield_managers: '[a, b]', approve_deletes: '40' },
      });
      expect(given?.options).toMatchObject({
        drift: DriftMode.OFF,
        onFailure: OnFailure.ROLLBACK,
        yieldManagers: ['a', 'b'],
        approveDeletes: 40,
        ignore: [{ group: 'apps', kind: 'Deployment', paths: ['/spec/replicas'] }],
      });
      expect([...(given?.names ?? [])].sort()).toEqual(['approve_deletes', 'drift', 'ignore', 'on_failure', 'yield_managers']);
      await writeFile(file, '- drift\n');
      await expect(readOptions({ options: file })).rejects.toThrow('is not a mapping of options');
      await writeFile(file, 'drift: [\n');
      await expect(readOptions({ options: file })).rejects.toThrow(`${file} cannot be read`);
      await expect(readOptions({ options: join(folder, 'none') })).rejects.toThrow('cannot be read');
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('are none when none are given, and refused by name and by value', async () => {
    expect(await readOptions({})).toBeUndefined();
    expect((await readOptions({ confirmSeconds: 30 }))?.options.confirmSeconds).toBe(30);
    await expect(readOptions({ option: { confirm_seconds: 'soon' } })).rejects.toThrow('confirm_seconds');
    await expect(readOptions({ option: { paused: 'maybe' } })).rejects.toThrow(/paused.*(bool|expected)/);
    await expect(readOptions({ option: { health_rules: '[{kind: A, curent: x}]' } })).rejects.toThrow(
      'unknown field options.health_rules[0].curent, known are group, kind, current',
    );
  });
});
