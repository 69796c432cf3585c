/**
 * Opens and accepts connections in the network namespace it is started in: one JSON command a line on stdin, one answer a line on stdout.
 * Whether a probe got an answer is all it says.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';

/** A command. `listen` answers what it gets; `probe` sends one message from an address and waits for the answer. */
export type Command =
  | {
      readonly op: 'listen';
      readonly id: number;
      readonly protocol: 'TCP' | 'UDP';
      readonly address: string;
      readonly port: number;
    }
  | {
      readonly op: 'probe';
      readonly id: number;
      readonly protocol: 'TCP' | 'UDP';
      readonly from: string;
      readonly to: string;
      readonly port: number;
      readonly deadlineMs: number;
    };

/** The answer to the command with its id. */
export interface Answer {
  readonly id: number;
  readonly open: boolean;
}

async function listen({ protocol, address, port }: Extract<Command, { op: 'listen' }>): Promise<boolean> {
  if (protocol === 'TCP') {
    const server = createServer((socket) => socket.on('error', () => {}).end('x')).listen(port, address);
    await once(server, 'listening');
    return true;
  }
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', (_, sender) => socket.send('x', sender.port, sender.address, () => {}));
  socket.bind(port, address);
  await once(socket, 'listening');
  return true;
}

async function probe({ protocol, from, to, port, deadlineMs }: Extract<Command, { op: 'probe' }>): Promise<boolean> {
  const signal = AbortSignal.timeout(deadlineMs);
  if (protocol === 'TCP') {
    const socket = connect({ host: to, port, localAddress: from });
    const open = await once(socket, 'data', { signal }).then(
      () => true,
      () => false,
    );
    socket.on('error', () => {}).destroy();
    return open;
  }
  const socket = createSocket(to.includes(':') ? 'udp6' : 'udp4');
  socket.on('error', () => {}).bind(0, from);
  await once(socket, 'listening');
  socket.send('x', port, to, () => {});
  const open = await once(socket, 'message', { signal }).then(
    () => true,
    () => false,
  );
  socket.close();
  return open;
}

for await (const line of createInterface({ input: process.stdin })) {
  const command: Command = JSON.parse(line);
  const work = command.op === 'listen' ? listen(command) : probe(command);
  void work.then((open) => process.stdout.write(`${JSON.stringify({ id: command.id, open })}\n`));
}
process.exit();
