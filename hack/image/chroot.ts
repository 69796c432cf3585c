/** How a command sees another root file system. */
export interface RootOptions {
  /** User and group; the caller's when absent. */
  readonly user?: string;
  /** Nothing but the volumes can be written to, and no privileges can be gained. */
  readonly readOnly?: boolean;
  /** Directories of the caller, by the path where the command sees them. */
  readonly volumes?: Readonly<Record<string, string>>;
  /** Variables besides those of the caller, of which it does not see those that name the caller's directories. */
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * Words of a command that runs what follows them in the root file system `root`, with mounts of its own that end with it, as a
 * container runtime would. Needs root and util-linux. Network, processes and clock are those of the caller.
 */
export function inRoot(root: string, { user, readOnly = false, volumes = {}, env = {} }: RootOptions): [string, ...string[]] {
  const script = [
    `mount --bind '${root}' '${root}'`,
    `mount -t proc proc '${root}/proc'`,
    `mount --rbind /dev '${root}/dev'`,
    ...Object.entries(volumes).map(([path, from]) => `mount --bind '${from}' '${root}${path}'`),
    ...(readOnly ? [`mount -o remount,bind,ro '${root}'`] : []),
    'exec "$@"',
  ].join('\n');
  const [uid, gid] = user?.split(':') ?? [];
  const identity = user === undefined ? [] : [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups'];
  const limits = readOnly ? ['--no-new-privs', '--bounding-set=-all', '--inh-caps=-all'] : [];
  // the root is changed first: setpriv drops the right to change it
  const words = ['chroot', root, ...(identity.length > 0 ? ['setpriv', ...identity, ...limits] : [])];
  const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const hidden = ['HOME', 'TMPDIR', 'NODE_COMPILE_CACHE'].flatMap((name) => ['-u', name]);
  return ['unshare', '--mount', 'sh', '-euc', script, 'sh', ...words, 'env', ...hidden, ...settings];
}
