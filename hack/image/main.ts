/**
 * `node hack/image/main.ts DIRECTORY` builds the image of deploy/image/Dockerfile without an engine: `DIRECTORY/rootfs`,
 * `DIRECTORY/image.tar`, an OCI image layout, and `DIRECTORY/sbom.cdx.json`, its bill of materials. For the architecture of this machine; needs root, mmdebstrap and the network. A
 * `DIRECTORY` that is there is replaced. `SOURCE_DATE_EPOCH` is the time of every file, otherwise that of the last commit.
 */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import manifest from '../../package.json' with { type: 'json' };
import { must } from '../process.ts';
import { writeLayout } from './layout.ts';
import { billOfMaterials, readContents } from './sbom.ts';
import { runBuildStage, runFinalStage } from './stages.ts';

const [target] = process.argv.slice(2);
const arch = ({ x64: 'amd64', arm64: 'arm64' } as const)[process.arch as 'x64'];
if (target === undefined || arch === undefined) {
  console.error('usage: node hack/image/main.ts DIRECTORY (on x64 or arm64)');
  process.exit(2);
}
const directory = resolve(target);
const [build, rootfs] = [join(directory, 'build'), join(directory, 'rootfs')];
const epoch = Number(process.env.SOURCE_DATE_EPOCH ?? (await must('git', ['log', '-1', '--format=%ct'])));
process.env.SOURCE_DATE_EPOCH = String(epoch); // for the tools
await rm(directory, { recursive: true, force: true });
await mkdir(build, { recursive: true });
await runBuildStage(build, arch);
const config = await runFinalStage(rootfs, build);
const { version } = manifest;
const bill = billOfMaterials({ version, epoch, ...(await readContents(rootfs)) });
await writeFile(join(directory, 'sbom.cdx.json'), bill);
const digest = await writeLayout(join(directory, 'image.tar'), { rootfs, config, arch, epoch, tag: version });
console.log(JSON.stringify({ digest, config }));
