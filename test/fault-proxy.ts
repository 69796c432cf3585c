import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { freePort } from '../hack/kube/ports.ts';

/** Counts since the proxy started. */
export interface TcpCounts {
  readonly accepted: number;
  readonly open: number;
  /** Bytes read from clients and from the target. */
  readonly bytesUp: number;
  readonly bytesDown: number;
}

/** A TCP proxy that can fail on command. What it carries (TLS, HTTP/2, PostgreSQL) does not matter. */
export interface TcpProxy extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly port: number;
  /** Resets every connection and refuses new ones, until `heal`. */
  cut(): void;
  /** Resets every connection; new ones are accepted. */
  dropConnections(): void;
  /** Accepts and keeps connections but forwards nothing in either direction, until `heal`: what a lost network looks like. */
  stall(): void;
  /** Accepts and forwards again; what was held back by `stall` goes out. */
  heal(): Promise<void>;
  counts(): TcpCounts;
}

/** Starts a TCP proxy on a loopback port in front of `target`, a port or a socket file. A connection it cannot make is reset. */
export async function startTcpProxy({
  target,
}: {
  readonly target: { readonly host: string; readonly port: number } | { readonly path: string };
}): Promise<TcpProxy> {
  const sockets = new Set<Socket>();
  const totals = { accepted: 0, bytesUp: 0, bytesDown: 0 };
  let stalled = false;

  const forward = (from: Socket, to: Socket, count: 'bytesUp' | 'bytesDown') => {
    from.on('data', (chunk) => {
      totals[count] += chunk.length;
      if (!to.write(chunk)) {
        from.pause();
        to.once('drain', () => {
          if (!stalled) from.resume();
        });
      }
    });
    from.on('end', () => to.end());
    from.on('error', () => reset(to));
    from.on('close', () => {
      sockets.delete(from);
      if (from.errored !== null) reset(to);
    });
    sockets.add(from);
    if (stalled) from.pause();
  };
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    totals.accepted++;
    const upstream = connect({ ...target, allowHalfOpen: true, noDelay: true });
    forward(client, upstream, 'bytesUp');
    forward(upstream, client, 'bytesDown');
  });
  const listen = async (port: number) => {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  };
  const dropConnections = () => {
    for (const socket of sockets) reset(socket);
  };
  await listen(await freePort());
  const { port } = server.address() as AddressInfo;

  return {
    host: '127.0.0.1',
    port,
    dropConnections,
    cut() {
      server.close();
      dropConnections();
    },
    stall() {
      stalled = true;
      for (const socket of sockets) socket.pause();
    },
    async heal() {
      stalled = false;
      for (const socket of sockets) socket.resume();
      if (!server.listening) await listen(port);
    },
    counts: () => ({ ...totals, open: sockets.size / 2 }),
    async [Symbol.asyncDispose]() {
      dropConnections();
      if (!server.listening) return;
      server.close();
      await once(server, 'close');
    },
  };
}

/** A socket file knows no reset. */
function reset(socket: Socket): void {
  if (socket.remoteFamily === undefined) socket.destroy();
  else socket.resetAndDestroy();
}
