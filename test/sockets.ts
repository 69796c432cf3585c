import { readdir, readFile, readlink } from 'node:fs/promises';

/** A TCP or UDP socket of a process, as the kernel tells it. */
export interface KernelSocket {
  readonly protocol: 'tcp' | 'udp';
  readonly listens: boolean;
  readonly localPort: number;
  /** 0 while there is no other end. */
  readonly remotePort: number;
}

/** TCP_LISTEN of include/net/tcp_states.h. */
const LISTEN = '0A';

/** The sockets of a process now, IPv4 and IPv6 (Linux: proc(5), `/proc/[pid]/net/tcp`). */
export async function socketsOf(pid: number): Promise<KernelSocket[]> {
  const inodes = new Set<string>();
  for (const fd of await readdir(`/proc/${pid}/fd`)) {
    const link = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => ''); // closed since the listing
    const inode = /^socket:\[(\d+)\]$/.exec(link)?.[1];
    if (inode !== undefined) inodes.add(inode);
  }
  const sockets: KernelSocket[] = [];
  for (const table of ['tcp', 'tcp6', 'udp', 'udp6']) {
    const text = await readFile(`/proc/${pid}/net/${table}`, 'utf8').catch(() => ''); // no IPv6 on this machine
    for (const line of text.split('\n').slice(1)) {
      const [, local = '', remote = '', state = '', , , , , , inode = ''] = line.trim().split(/\s+/);
      if (!inodes.has(inode)) continue;
      const protocol = table.startsWith('tcp') ? 'tcp' : 'udp';
      sockets.push({
        protocol,
        listens: state === LISTEN && protocol === 'tcp',
        localPort: portOf(local),
        remotePort: portOf(remote),
      });
    }
  }
  return sockets;
}

function portOf(address: string): number {
  return Number.parseInt(address.split(':')[1] ?? '0', 16);
}

/** Looks again and again until `work` is done; resolves with every different socket seen at any time. */
export async function socketsDuring(pid: number, work: Promise<unknown>): Promise<KernelSocket[]> {
  const seen = new Map<string, KernelSocket>();
  let isDone = false;
  const finish = () => {
    isDone = true;
  };
  work.then(finish, finish);
  for (;;) {
    for (const socket of await socketsOf(pid)) seen.set(JSON.stringify(socket), socket);
    if (isDone) break;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await work;
  return [...seen.values()];
}
