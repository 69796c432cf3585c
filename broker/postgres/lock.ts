import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { realpath } from 'node:fs/promises';
import { connect, createServer } from 'node:net';

/**
 * Holds `directory` for this process until disposed: a Linux abstract socket named after the directory, which the
 * kernel frees however the process ends, so there is nothing stale to clean up. Throws naming the holder's process id
 * when another live process has it. Works within one network namespace (one machine, one container).
 */
export async function lockDirectory(directory: string): Promise<AsyncDisposable> {
  const digest = createHash('sha256')
    .update(await realpath(directory))
    .digest('hex')
    .slice(0, 32);
  const path = `\0brokkr-data-${digest}`;
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end(String(process.pid));
  });
  server.listen(path);
  try {
    await once(server, 'listening');
  } catch (error) {
    const holder = await askHolder(path);
    throw new Error(`the data directory ${directory} is in use by another broker${holder ? ` (process ${holder})` : ''}`, {
      cause: error,
    });
  }
  server.unref();
  return {
    async [Symbol.asyncDispose]() {
      server.close();
      await once(server, 'close');
    },
  };
}

function askHolder(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect(path);
    socket.on('data', (chunk) => {
      text += chunk.toString('utf8');
    });
    socket.on('error', () => resolve(undefined));
    socket.on('close', () => resolve(/^\d+$/.test(text) ? text : undefined));
  });
}
