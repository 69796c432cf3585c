import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { parseConnectionUri } from '../broker/postgres/uri.ts';

/** A way to a database over TCP that keeps what clients said on it. */
export interface PostgresWire extends AsyncDisposable {
  /** URI of the same database through it, without TLS. */
  readonly url: string;
  readonly port: number;
  /** Everything clients sent so far: statements and parameters are readable in it, parted by NUL. */
  sent(): string;
  /** Forgets what was sent. */
  clear(): void;
}

/** Opens a way to the database of `url`, whether that names a TCP address or the directory of a Unix socket. */
export async function recordPostgres(url: string): Promise<PostgresWire> {
  const { host, port, user, database } = parseConnectionUri(url, {});
  const sockets = new Set<Socket>();
  let chunks: Buffer[] = [];
  const server = createServer((client) => {
    const upstream = host.startsWith('/') ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
    client.on('data', (chunk) => chunks.push(chunk));
    for (const [end, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(end);
      end.on('error', () => undefined);
      end.once('close', () => {
        sockets.delete(end);
        other.destroy();
      });
      end.pipe(other);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const own = (server.address() as AddressInfo).port;
  return {
    url: `postgresql://${encodeURIComponent(user)}@127.0.0.1:${own}/${encodeURIComponent(database)}?sslmode=disable`,
    port: own,
    sent: () => Buffer.concat(chunks).toString('latin1'),
    clear() {
      chunks = [];
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
