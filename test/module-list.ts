import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { temporaryDirectory } from './processes.ts';

/** What a process and its threads have loaded. */
export interface ModuleList {
  /** Settings of the process that is to be watched. */
  readonly env: Readonly<Record<string, string>>;
  /** Packages below node_modules, so far. */
  packages(): ReadonlySet<string>;
}

/** Notes every module that a process of ours loads, whether imported or required. */
export async function listModules(): Promise<ModuleList> {
  const dir = await temporaryDirectory();
  const list = join(dir, 'modules.txt');
  const hook = join(dir, 'hook.mjs');
  await writeFile(
    hook,
    `import { appendFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
registerHooks({ load(url, context, next) { appendFileSync(${JSON.stringify(list)}, url + '\\n'); return next(url, context); } });
`,
  );
  return {
    env: { NODE_OPTIONS: `--import ${hook}` },
    packages() {
      const urls = existsSync(list) ? readFileSync(list, 'utf8').split('\n') : [];
      return new Set(urls.flatMap((url) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1] ?? []));
    },
  };
}
