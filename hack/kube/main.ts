import { homedir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { stopSignal } from '#lib/run.ts';
import { aborted } from '#lib/signal.ts';
import { buildControlPlane } from './binaries.ts';
import { startControlPlane } from './control-plane.ts';

/** `node hack/kube/main.ts build` builds the programs; `up [--dir D]` also runs a control plane until it is interrupted. */
const { values, positionals } = parseArgs({ allowPositionals: true, options: { dir: { type: 'string' } } });
const signal = stopSignal();
const progress = (line: string) => console.error(line);
const build = () => buildControlPlane({ env: process.env, progress }, signal);

switch (positionals[0]) {
  case 'build': {
    const binaries = build();
    await binaries.done;
    console.log(await binaries.path('kubectl'));
    break;
  }
  case 'up': {
    const dir = values.dir ?? join(process.env.XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'brokkr', 'kube');
    await using controlPlane = await startControlPlane({ binaries: build(), dir, progress, audit: 'off' }, signal);
    console.log(`export KUBECONFIG=${controlPlane.kubeconfigPath}`);
    await controlPlane.controllersReady;
    progress('ready; interrupt to stop');
    await aborted(signal);
    break;
  }
  default:
    console.error('usage: node hack/kube/main.ts build | up [--dir DIRECTORY]');
    process.exitCode = 2;
}
