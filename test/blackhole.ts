import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** Listens with a queue for one connection, says where, and never runs its event loop again: nothing is ever accepted. */
const LISTENER = `const server = require('node:net').createServer().listen(0, '127.0.0.1', 1, () => {
  process.stdout.write(String(server.address().port));
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
});`;
/** Connections that a queue for one takes (Linux: more than `backlog`, net/sock.h, sk_acceptq_is_full). */
const QUEUED = 2;

/** A port of loopback that drops what comes, as a firewall does: the queue of its listener is full. */
export interface Blackhole extends AsyncDisposable {
  readonly port: number;
}

/** Opens one. */
export async function openBlackhole(): Promise<Blackhole> {
  const child = spawn(process.execPath, ['-e', LISTENER], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [text] = (await once(child.stdout, 'data')) as [Buffer];
  const port = Number(text.toString());
  const queued: Socket[] = [];
  for (let count = 0; count < QUEUED; count++) {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    await once(socket, 'connect');
    queued.push(socket);
  }
  return {
    port,
    async [Symbol.asyncDispose]() {
      for (const socket of queued) socket.destroy();
      child.kill('SIGKILL');
      await once(child, 'close');
    },
  };
}
