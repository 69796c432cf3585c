import { expect, it } from 'vitest';
import { createProgram } from './program.ts';
import { cliReference } from './reference.ts';

it('describes every command in docs/reference/cli.md', async () => {
  const program = createProgram({ version: '0', run: () => Promise.resolve() });
  await expect(cliReference(program)).toMatchFileSnapshot('../docs/reference/cli.md');
});
