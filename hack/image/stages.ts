import { mkdir, readFile, rm, stat } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import { must, ROOT } from '../process.ts';
import { inRoot } from './chroot.ts';
import { type Instruction, pairsOf, parseDockerfile, type Stage } from './dockerfile.ts';

/** What a container runtime is told about the image, in the words of the OCI image specification. */
export interface ImageConfig {
  readonly User: string;
  readonly WorkingDir: string;
  readonly Cmd: readonly string[];
  readonly Env: readonly string[];
  readonly ExposedPorts: Readonly<Record<string, object>>;
  readonly Labels: Readonly<Record<string, string>>;
}

/** A stage while it is carried out. */
interface Work {
  readonly root: string;
  /** Where its commands run: in its root, or among ours when its base is Node, which we are. */
  readonly inside: boolean;
  readonly args: Record<string, string>;
  config: ImageConfig;
}

const DOCKERFILE = join(ROOT, 'deploy/image/Dockerfile');
/** Where Docker's image begins, and PATH as it sets it. */
const BLANK: ImageConfig = {
  User: '',
  WorkingDir: '/',
  Cmd: [],
  Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
  ExposedPorts: {},
  Labels: {},
};
/** What `debian:*-slim` leaves out: https://github.com/debuerreotype/debuerreotype, `.slimify-excludes`. */
const SLIM = ['/usr/share/man/*', '/usr/share/info/*', '/usr/share/locale/*', '/usr/share/doc/*', '/usr/share/lintian/*'];

/** Carries out the first stage of the Dockerfile, which compiles, in `directory`. Minutes: it installs packages twice. */
export async function runBuildStage(directory: string, arch: 'amd64' | 'arm64'): Promise<void> {
  const [build] = await stages();
  const work = { root: directory, inside: false, args: { TARGETARCH: arch }, config: BLANK };
  await carryOut(build, work, {});
}

/** Carries out the last stage in `directory`, which becomes the root file system of the image; needs root and mmdebstrap. */
export async function runFinalStage(directory: string, buildDirectory: string): Promise<ImageConfig> {
  const [build, final] = await stages();
  if (!/^debian:13\.\d+-slim@sha256:[0-9a-f]{64}$/.test(final.base))
    throw new Error(`not a base that can be built here: ${final.base}`);
  const excludes = SLIM.map((path) => `--dpkgopt=path-exclude=${path}`);
  await must('mmdebstrap', [
    '--mode=root',
    '--variant=apt',
    ...excludes,
    '--dpkgopt=path-include=/usr/share/doc/*/copyright',
    'trixie',
    directory,
  ]);
  return await carryOut(final, { root: directory, inside: true, args: {}, config: BLANK }, { [build.name]: buildDirectory });
}

/** The variables of a process in the image. */
export function variablesOf({ Env }: ImageConfig): Record<string, string> {
  return Object.fromEntries(Env.map((pair) => pair.split(/=(.*)/s).slice(0, 2)));
}

async function stages(): Promise<[build: Stage, final: Stage]> {
  const [build, final, ...more] = parseDockerfile(await readFile(DOCKERFILE, 'utf8'));
  if (!build || !final || more.length > 0) throw new Error(`${DOCKERFILE} has not two stages`);
  return [build, final];
}

async function carryOut({ instructions }: Stage, work: Work, from: Readonly<Record<string, string>>): Promise<ImageConfig> {
  for (const instruction of instructions) await step(instruction, work, from);
  return work.config;
}

async function step(instruction: Instruction, work: Work, from: Readonly<Record<string, string>>): Promise<void> {
  const { name, text, line, flags } = instruction;
  if (Object.keys(flags).some((flag) => name !== 'COPY' || flag !== 'from')) throw new Error(`line ${line}: ${name} with a flag`);
  const { config } = work;
  switch (name) {
    case 'ARG':
      if (work.args[text] === undefined) throw new Error(`line ${line}: no value for ${text}`);
      return;
    case 'RUN':
      return await runStep(text, work);
    case 'COPY':
      return await copy(instruction, work, flags.from === undefined ? ROOT : from[flags.from]);
    case 'ENV':
      work.config = { ...config, Env: [...config.Env, ...Object.entries(pairsOf(instruction)).map((pair) => pair.join('='))] };
      return;
    case 'LABEL':
      work.config = { ...config, Labels: { ...config.Labels, ...pairsOf(instruction) } };
      return;
    case 'EXPOSE':
      work.config = { ...config, ExposedPorts: Object.fromEntries(text.split(/\s+/).map((port) => [`${port}/tcp`, {}])) };
      return;
    case 'WORKDIR':
      work.config = { ...config, WorkingDir: text };
      await mkdir(join(work.root, text), { recursive: true });
      return;
    case 'USER':
      work.config = { ...config, User: text };
      return;
    case 'CMD':
      work.config = { ...config, Cmd: JSON.parse(text) as string[] };
      return;
    default:
      throw new Error(`line ${line}: ${name} is not known here`);
  }
}

async function runStep(script: string, { root, inside, args, config }: Work): Promise<void> {
  const cwd = join(root, config.WorkingDir);
  if (!inside) {
    const settings = Object.entries(args).map(([name, value]) => `${name}=${value}`);
    await must('env', [...settings, 'sh', '-euc', script], cwd);
    return;
  }
  const resolver = join(root, 'etc/resolv.conf');
  await must('cp', ['--remove-destination', '/etc/resolv.conf', resolver]); // an engine lends its own, too
  const [command, ...words] = inRoot(root, { env: { ...variablesOf(config), DEBIAN_FRONTEND: 'noninteractive' } });
  await must(command, [...words, 'sh', '-euc', script]);
  await rm(resolver);
}

/** The last word is the target, always a directory here; of a source that is one, the content is copied. */
async function copy({ text, line }: Instruction, { root, config }: Work, source: string | undefined): Promise<void> {
  if (source === undefined) throw new Error(`line ${line}: COPY from an unknown stage`);
  const words = text.split(/\s+/);
  const last = words.at(-1) ?? '';
  const target = isAbsolute(last) ? join(root, last) : resolve(root, `.${config.WorkingDir}`, last);
  await mkdir(target, { recursive: true });
  const ignored = source === ROOT ? (await readFile(`${DOCKERFILE}.dockerignore`, 'utf8')).trim().split('\n') : [];
  for (const word of words.slice(0, -1)) {
    const path = join(source, word);
    const excludes = ignored.map((name) => `--exclude=./${name}`);
    const whole = (await stat(path)).isDirectory() ? ['-C', path, '.'] : ['-C', source, word];
    // tar, not cp: it can leave out what is ignored
    const script = 'target=$1; shift; tar -cf - "$@" | tar -C "$target" -xf - --no-same-owner';
    await must('bash', ['-euo', 'pipefail', '-c', script, 'copy', target, ...excludes, ...whole]);
  }
}
