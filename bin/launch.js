// Plain JavaScript for any Node from 18: it runs before we know that this Node can read TypeScript.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import * as module from 'node:module';
import { constants, homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The first Node that runs TypeScript files as they are, with everything we use. */
const NEEDED_MAJOR = 24;

/**
 * Runs an entry point: in this process when its Node is new enough, otherwise in a child under the Node that the lock file
 * pins, with our arguments, our terminal and our signals, and with its exit code as ours.
 * @param {URL} entry
 */
export async function launch(entry) {
  const file = fileURLToPath(entry);
  if (Number.parseInt(process.versions.node, 10) >= NEEDED_MAJOR) {
    keepCompiledCode();
    process.argv[1] = file;
    await import(entry.href);
    return;
  }
  const node = pinnedNode();
  if (!node) {
    console.error(
      `brokkr needs Node ${NEEDED_MAJOR} or newer, this is ${process.version}, and the one that npm installs for ` +
        `${process.platform}-${process.arch} is missing: run npm ci without --omit=optional, or install Node ${NEEDED_MAJOR}`,
    );
    process.exitCode = 1;
    return;
  }
  runUnder(node, process.argv[1] ?? file); // the launcher again, under the Node that takes the branch above
}

/**
 * Saves two thirds of the start: stripped and compiled files are kept from run to run. In the user's own cache, not in
 * Node's default below /tmp, where somebody else could leave code for us. Without a writable folder Node does without.
 */
function keepCompiledCode() {
  const caches = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  module.enableCompileCache?.(process.env.NODE_COMPILE_CACHE || join(caches, 'brokkr', 'node'));
}

/** @returns {string | undefined} */
function pinnedNode() {
  const name = `node-${process.platform}-${process.arch}/bin/node`;
  // beside us in a checkout, above us when installed as a dependency
  for (const folder of ['../node_modules/', '../../']) {
    const path = fileURLToPath(new URL(folder + name, import.meta.url));
    if (existsSync(path)) return path;
  }
  return undefined;
}

/**
 * @param {string} node
 * @param {string} file
 */
function runUnder(node, file) {
  const child = spawn(node, [...process.execArgv, file, ...process.argv.slice(2)], { stdio: 'inherit' });
  /** @type {NodeJS.Signals[]} */
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2', 'SIGQUIT'];
  // Ctrl-C reaches the whole terminal group by itself: passing SIGINT on as well would count as a second one
  const forward = (/** @type {NodeJS.Signals} */ signal) => {
    if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
  };
  for (const signal of signals) process.on(signal, forward);
  child.on('error', (error) => {
    console.error(`cannot run ${node}: ${error.message}`);
    process.exitCode = 1;
  });
  child.on('exit', (code, signal) => {
    for (const name of signals) process.off(name, forward);
    process.exitCode = code ?? 128 + constants.signals[/** @type {NodeJS.Signals} */ (signal)];
  });
}
