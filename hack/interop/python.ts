import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ROOT } from '../process.ts';
import { cachedTool, type ToolOptions } from './cache.ts';
import { command } from './command.ts';
import { contractFiles, generateStubs } from './stubs.ts';

const sourceDir = join(ROOT, 'test/interop/python');

/** How to start the Python client. */
export interface PythonClient {
  /** The interpreter of the virtual environment. */
  readonly python: string;
  /** The client's file; its generated modules lie beside it. */
  readonly main: string;
}

/**
 * The Python client of test/interop/python with stubs that buf writes with the plugins of grpcio-tools. The virtual
 * environment (55 MB) and the stubs are in the cache; the stubs are made again when the contract or the client changes.
 */
export async function preparePythonClient(options: ToolOptions, signal: AbortSignal): Promise<PythonClient> {
  const python = await virtualEnvironment(options, signal);
  const texts = await Promise.all(['main.py', 'grpc_python_plugin.py'].map((file) => readFile(join(sourceDir, file), 'utf8')));
  const dir = await cachedTool(
    {
      name: 'interop-python',
      inputs: [python, ...texts, ...(await contractFiles())],
      cost: 'some seconds',
      async build(target) {
        const template = join(target, 'buf.gen.json');
        await writeFile(
          template,
          JSON.stringify({
            version: 'v2',
            plugins: [
              { protoc_builtin: 'python', protoc_path: [python, '-m', 'grpc_tools.protoc'], out: '.' },
              { local: [python, join(sourceDir, 'grpc_python_plugin.py')], out: '.' },
            ],
          }),
        );
        await generateStubs({ template, out: target, env: options.env }, signal);
        await cp(join(sourceDir, 'main.py'), join(target, 'main.py'));
      },
    },
    options,
    signal,
  );
  return { python, main: join(dir, 'main.py') };
}

/** The interpreter of a virtual environment with the pinned packages of requirements.txt. */
async function virtualEnvironment(options: ToolOptions, signal: AbortSignal): Promise<string> {
  const { env } = options;
  const requirements = join(sourceDir, 'requirements.txt');
  const interpreter = await command('python3', ['-c', 'import sys; print(sys.version, sys.executable)'], { env }, signal);
  const dir = await cachedTool(
    {
      name: 'python',
      inputs: [interpreter, await readFile(requirements, 'utf8')],
      cost: 'half a minute',
      async build(target) {
        await command('python3', ['-m', 'venv', target], { env }, signal);
        const pip = [
          '-m',
          'pip',
          'install',
          '--quiet',
          '--disable-pip-version-check',
          '--only-binary',
          ':all:',
          '-r',
          requirements,
        ];
        await command(join(target, 'bin/python'), pip, { env }, signal);
      },
    },
    options,
    signal,
  );
  return join(dir, 'bin/python');
}
