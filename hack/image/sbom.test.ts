import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv } from 'ajv';
import { beforeAll, describe, expect, it } from 'vitest';
import { temporaryDirectory } from '../../test/processes.ts';
import { ROOT } from '../process.ts';
import { billOfMaterials, type Contents, readContents } from './sbom.ts';

const SCHEMAS = fileURLToPath(new URL('res/schema/', import.meta.resolve('@cyclonedx/cyclonedx-library/package.json')));
const STATUS = `Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12+deb13u1
Description: library
 more: of it

Package: tzdata
Status: install ok installed
Architecture: all
Version: 1:2025b-4
`;

let rootfs: string;
let contents: Contents;

async function write(path: string, text: string): Promise<void> {
  await mkdir(dirname(join(rootfs, path)), { recursive: true });
  await writeFile(join(rootfs, path), text);
}

beforeAll(async () => {
  rootfs = await temporaryDirectory();
  const { packages } = JSON.parse(await readFile(join(ROOT, 'package-lock.json'), 'utf8'));
  const { '': _, ...installed } = packages;
  await write('opt/brokkr/node_modules/.package-lock.json', JSON.stringify({ packages: installed }));
  for (const path of Object.keys(installed)) {
    if (path !== 'node_modules/vitest') await mkdir(join(rootfs, 'opt/brokkr', path), { recursive: true });
  }
  await write('var/lib/dpkg/status', STATUS);
  const format = 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/';
  await write(
    'usr/share/doc/libc6/copyright',
    `${format}\n\nFiles: *\nLicense: LGPL-2.1+\n text\n\nLicense: GPL-2\n\nLicense: GPL-2\n`,
  );
  await write('usr/share/doc/tzdata/copyright', 'This is in the public domain.\nLicense: what somebody wrote\n');
  contents = { version: '1.2.3', epoch: 1_700_000_000, ...(await readContents(rootfs)) };
});

describe('the bill of materials', () => {
  it('fits the published schema', async () => {
    const ajv = new Ajv({ strict: false, validateFormats: false });
    const schema = async (file: string) => JSON.parse(await readFile(join(SCHEMAS, file), 'utf8'));
    for (const name of ['spdx.SNAPSHOT.schema.json', 'jsf-0.82.SNAPSHOT.schema.json']) {
      ajv.addSchema(await schema(name), `http://cyclonedx.org/schema/${name}`); // as the main one refers to them
    }
    const validate = ajv.compile(await schema('bom-1.6.SNAPSHOT.schema.json'));
    const bill = JSON.parse(billOfMaterials(contents));
    validate(bill);
    expect(validate.errors).toBeNull();
    expect(
      validate({ ...bill, components: [{ ...bill.components[0], licenses: [{ license: { id: 'No such licence' } }] }] }),
    ).toBe(false);
  });

  it('has what is installed, with licences and digests, and nothing that was left out', () => {
    const { components } = JSON.parse(billOfMaterials(contents));
    const find = (purl: string) => components.find((component: { purl: string }) => component.purl.startsWith(purl));
    expect(find('pkg:npm/%40bufbuild/protobuf@')).toMatchObject({
      group: '@bufbuild',
      name: 'protobuf',
      licenses: [{ expression: '(Apache-2.0 AND BSD-3-Clause)' }],
      hashes: [{ alg: 'SHA-512', content: expect.stringMatching(/^[0-9a-f]{128}$/) }],
    });
    expect(find('pkg:npm/undici@')).toMatchObject({ licenses: [{ license: { id: 'MIT' } }] });
    expect(find('pkg:npm/vitest@')).toBeUndefined();
    expect(find('pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64')).toMatchObject({
      licenses: [{ license: { name: 'GPL-2' } }, { license: { name: 'LGPL-2.1+' } }],
    });
    expect(find('pkg:deb/debian/tzdata@1%3A2025b-4?arch=all')).not.toHaveProperty('licenses');
  });

  it('is the same for the same contents, in whatever order they come', () => {
    const npm = Object.fromEntries(Object.entries(contents.npm).reverse());
    expect(billOfMaterials({ ...contents, npm, debian: contents.debian.toReversed() })).toBe(billOfMaterials(contents));
  });
});
