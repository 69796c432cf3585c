import { mintKey } from '#lib/pak.ts';
import type { Cli } from './cli.ts';
import { type OutputFormat, printDocument } from './output.ts';

/** `brokkr generate-pak`: a key and the hash that a broker is configured with. Offline; nothing is stored. */
export async function generatePak({ terminal }: Cli, output: OutputFormat): Promise<void> {
  const { pak, hash } = mintKey();
  if (output !== 'table') return printDocument(terminal, output, { pak, hash });
  terminal.line(`pak   ${pak}`);
  terminal.line(`hash  ${hash}`);
}
