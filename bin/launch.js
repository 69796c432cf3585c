// Plain JavaScript for any Node from 18: it runs before we know that this Node can read TypeScript.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import * as module from 'node:module';
import { constants, homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

/** The first Node that runs TypeScript files as they are, and has everything we use: what a package needs that is JavaScript. */
const NEEDED_MAJOR = 24;

/**
 * Runs an entry point: in this process when its Node is new enough, otherwise in a child under the Node that the lock file
 * pins, with our arguments, our terminal and our signals, and with its exit code as ours.
 * @param {URL} entry Without its ending: a checkout has the source, a package the JavaScript.
 * @param {{ flags?: Readonly<Record<string, string>>, env?: Readonly<Record<string, string>> }} [start] Flags of Node by name and variables that
 * only count when a process starts with them. Where they are missing the process replaces itself; what the user set stays.
 */
export async function launch(entry, { flags = {}, env = {} } = {}) {
  const source = `${fileURLToPath(entry)}.ts`;
  const file = existsSync(source) ? source : source.replace(/ts$/, 'js');
  if (Number.parseInt(process.versions.node, 10) >= NEEDED_MAJOR) {
    startAgain(flags, env);
    keepCompiledCode();
    process.argv[1] = file;
    await import(pathToFileURL(file).href);
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
 * Does not return when something was missing: the same process goes on as a new program (execve(2)). Where there is no such call, as on
 * Windows, we go on without.
 * @param {Readonly<Record<string, string>>} flags
 * @param {Readonly<Record<string, string>>} env
 */
function startAgain(flags, env) {
  const given = [...process.execArgv, process.env.NODE_OPTIONS ?? ''].join(' ');
  const missing = Object.entries(flags).filter(([name]) => !given.includes(name));
  if (missing.length === 0 || !process.execve) return;
  const options = [...process.execArgv, ...missing.map(([name, value]) => `${name}=${value}`)];
  process.execve(process.execPath, [process.execPath, ...options, ...process.argv.slice(1)], { ...env, ...process.env });
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
