import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A package of npm as a lock file has it. */
export interface NpmPackage {
  readonly version: string;
  readonly license?: string;
  /** Subresource integrity, SHA-512. */
  readonly integrity?: string;
}

/** A package of Debian as dpkg has it. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly arch: string;
  /** Short names in its copyright file, where that can be read by machines. */
  readonly licences: readonly string[];
}

/** What the image holds. */
export interface Contents {
  readonly version: string;
  /** Seconds since 1970. */
  readonly epoch: number;
  /** By path below node_modules, as in a lock file. */
  readonly npm: Readonly<Record<string, NpmPackage>>;
  readonly debian: readonly DebianPackage[];
}

/**
 * A bill of materials as a CycloneDX 1.6 document (https://cyclonedx.org/docs/1.6/json). The same contents give the same text: it has
 * no serial number, and its time is given.
 */
export function billOfMaterials({ version, epoch, npm, debian }: Contents): string {
  const components = [...Object.entries(npm).map(([path, one]) => npmComponent(path, one)), ...debian.map(debianComponent)];
  const unique = new Map(components.map((component) => [component['bom-ref'], component])); // npm may install one twice
  const own = { type: 'container', name: 'brokkr', version, licenses: [{ license: { id: 'Apache-2.0' } }] };
  const document = {
    $schema: 'http://cyclonedx.org/schema/bom-1.6.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: { timestamp: new Date(epoch * 1000).toISOString(), component: own },
    components: [...unique.values()].sort((a, b) => (a['bom-ref'] < b['bom-ref'] ? -1 : 1)),
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

function npmComponent(path: string, { version, license, integrity }: NpmPackage) {
  const whole = path.replace(/^.*node_modules\//, '');
  const [name = '', group] = whole.split('/').reverse();
  const purl = `pkg:npm/${whole.replace('@', '%40')}@${encodeURIComponent(version)}`;
  const isExpression = license !== undefined && /[ ()]/.test(license);
  return {
    type: 'library',
    'bom-ref': purl,
    ...(group !== undefined && { group }),
    name,
    version,
    purl,
    ...(integrity && {
      hashes: [{ alg: 'SHA-512', content: Buffer.from(integrity.replace(/^sha512-/, ''), 'base64').toString('hex') }],
    }),
    ...(license && { licenses: [isExpression ? { expression: license } : { license: { id: license } }] }),
  };
}

function debianComponent({ name, version, arch, licences }: DebianPackage) {
  const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${arch}&distro=debian-13`;
  return {
    type: 'library',
    'bom-ref': purl,
    name,
    version,
    purl,
    ...(licences.length > 0 && { licenses: licences.map((licence) => ({ license: { name: licence } })) }),
  };
}

/** Reads what is in a root file system that `runFinalStage` made. */
export async function readContents(rootfs: string): Promise<Pick<Contents, 'npm' | 'debian'>> {
  const app = join(rootfs, 'opt/brokkr');
  const lock = JSON.parse(await readFile(join(app, 'node_modules/.package-lock.json'), 'utf8')) as {
    readonly packages: Readonly<Record<string, NpmPackage>>;
  };
  const npm: Record<string, NpmPackage> = {};
  for (const [path, one] of Object.entries(lock.packages)) {
    if (
      await access(join(app, path)).then(
        () => true,
        () => false,
      )
    )
      npm[path] = one; // some are left out of the image
  }
  const paragraphs = (await readFile(join(rootfs, 'var/lib/dpkg/status'), 'utf8')).trim().split('\n\n');
  const debian = await Promise.all(paragraphs.map((paragraph) => readDebian(rootfs, paragraph)));
  return { npm, debian };
}

async function readDebian(rootfs: string, paragraph: string): Promise<DebianPackage> {
  const field = (key: string) => new RegExp(`^${key}: (.*)$`, 'm').exec(paragraph)?.[1] ?? '';
  const name = field('Package');
  const copyright = await readFile(join(rootfs, 'usr/share/doc', name, 'copyright'), 'utf8').catch(() => '');
  const isForMachines = /^Format: \S*copyright-format/m.test(copyright);
  const licences = isForMachines ? [...copyright.matchAll(/^License: *(\S.*?) *$/gm)].map(([, licence = '']) => licence) : [];
  return { name, version: field('Version'), arch: field('Architecture'), licences: [...new Set(licences)].sort() };
}
