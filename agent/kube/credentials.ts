import { readFile } from 'node:fs/promises';
import type { Clock } from '#lib/clock.ts';
import { errorText } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { abortable } from '#lib/signal.ts';
import { runExecPlugin } from './exec-plugin.ts';
import type { Env, KubeCredentials, TextSource } from './kubeconfig.ts';
import type { ServerClock } from './server-clock.ts';

/** Files are read again after this time, as client-go does (transport/token_source.go). */
const REREAD_MS = 60_000;
/** A plugin's credential is replaced this long before it expires, so that no request leaves with a dying one. */
const EXPIRY_MARGIN_MS = 60_000;
/** A plugin whose credentials look expired, or are, is not run more often; after a 401 it is run at once. */
const MIN_PLUGIN_MS = 10_000;

/** TLS settings of a connection. A new object means that connections must be made anew. */
export interface TlsMaterial {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

/** What a request needs now. */
export interface Material {
  /** Value of the `authorization` header. */
  readonly authorization: string | undefined;
  readonly tls: TlsMaterial;
}

interface Loaded extends Material {
  /** Monotonic time after which the material is loaded again; infinite for what cannot change. */
  readonly freshUntil: number;
  /** Monotonic time before which it is not, though it looks expired. */
  readonly notBefore: number;
  /** When it expires, in wall-clock milliseconds of the server, which is what refuses it then. */
  readonly expiresAt: number;
}

interface Deps {
  readonly clock: Clock;
  readonly serverClock: ServerClock;
  readonly log: Logger;
  readonly env: Env;
}

/** Credentials over time: files re-read each minute, plugins run again before expiry, one load at a time. */
export class Credentials {
  readonly #config: KubeCredentials;
  readonly #clock: Clock;
  readonly #serverClock: ServerClock;
  readonly #log: Logger;
  readonly #env: Env;
  #loaded: Loaded | undefined;
  #loading: Promise<Loaded> | undefined;
  #provider: Provider | undefined;

  constructor({ clock, serverClock, log, env }: Deps, config: KubeCredentials) {
    this.#clock = clock;
    this.#serverClock = serverClock;
    this.#log = log;
    this.#env = env;
    this.#config = config;
  }

  /** The material of now. While a renewal fails the last one stays in use; rejects only when there never was one. */
  async current(signal: AbortSignal): Promise<Material> {
    if (this.#loaded && this.#isFresh(this.#loaded)) return this.#loaded;
    return abortable(this.#load(), signal);
  }

  /** Loads again at once, after a 401. True when the material differs from before, so that trying again makes sense. */
  async reload(signal: AbortSignal): Promise<boolean> {
    const before = this.#loaded;
    if (before?.freshUntil === Number.POSITIVE_INFINITY && this.#config.auth.kind !== 'exec') return false;
    const after = await abortable(this.#load(), signal);
    return after.authorization !== before?.authorization || after.tls !== before?.tls;
  }

  #load(): Promise<Loaded> {
    this.#loading ??= this.#read()
      .catch((error: unknown) => {
        if (!this.#loaded) throw error;
        this.#log.warn({ error: errorText(error) }, 'credentials cannot be renewed');
        const laterMs = this.#clock.monotonic() + REREAD_MS;
        this.#loaded = { ...this.#loaded, freshUntil: laterMs, notBefore: laterMs };
        return this.#loaded;
      })
      .finally(() => {
        this.#loading = undefined;
      });
    return this.#loading;
  }

  async #read(): Promise<Loaded> {
    const { ca, certificate, key, auth } = this.#config;
    const texts = await Promise.all([readText(ca), readText(certificate), readText(key)]);
    let [, cert, privateKey] = texts;
    let authorization: string | undefined;
    let expiresAt = Number.POSITIVE_INFINITY;
    let freshUntil = [ca, certificate, key].some(isFile) ? this.#clock.monotonic() + REREAD_MS : Number.POSITIVE_INFINITY;
    switch (auth.kind) {
      case 'none':
        break;
      case 'token':
        authorization = `Bearer ${auth.token}`;
        break;
      case 'tokenFile':
        authorization = `Bearer ${(await readFile(auth.file, 'utf8')).trim()}`;
        freshUntil = this.#clock.monotonic() + REREAD_MS;
        break;
      case 'basic':
        authorization = `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString('base64')}`;
        break;
      case 'exec': {
        const answer = await runExecPlugin(auth.plugin, { server: this.#config.server, ca: texts[0] }, this.#env);
        if (answer.token !== undefined) authorization = `Bearer ${answer.token}`;
        cert = answer.certificate ?? cert;
        privateKey = answer.key ?? privateKey;
        expiresAt = answer.expiresAt ?? expiresAt;
        break;
      }
      case 'provider':
        this.#provider ??= await openProvider(auth.name, auth.config);
        authorization = await this.#provider();
        freshUntil = this.#clock.monotonic() + REREAD_MS;
    }
    const tls = sameOr(this.#loaded?.tls, { ca: texts[0], cert, key: privateKey });
    this.#loaded = { authorization, tls, freshUntil, expiresAt, notBefore: this.#clock.monotonic() + MIN_PLUGIN_MS };
    return this.#loaded;
  }

  #isFresh({ freshUntil, notBefore, expiresAt }: Loaded): boolean {
    const now = this.#clock.monotonic();
    return now < freshUntil && (now < notBefore || this.#serverClock.now() < expiresAt - EXPIRY_MARGIN_MS);
  }
}

/** Asks a legacy auth provider for the header of now. */
type Provider = () => Promise<string | undefined>;

/**
 * Legacy auth providers (OIDC) are left to client-node, loaded only here: it costs 90 MB. It keeps refreshed tokens, so one
 * instance serves for good.
 */
async function openProvider(name: string, config: Readonly<Record<string, unknown>>): Promise<Provider> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const kubeConfig = new KubeConfig();
  kubeConfig.loadFromClusterAndUser(
    { name: 'cluster', server: 'https://unused.invalid', skipTLSVerify: false },
    { name: 'user', authProvider: { name, config } },
  );
  return async () => {
    const options: { headers?: Record<string, string | undefined> } = {};
    await kubeConfig.applyToHTTPSOptions(options);
    return options.headers?.Authorization;
  };
}

function isFile(source: TextSource | undefined): boolean {
  return source !== undefined && 'file' in source;
}

async function readText(source: TextSource | undefined): Promise<string | undefined> {
  if (source === undefined) return undefined;
  return 'data' in source ? source.data : await readFile(source.file, 'utf8');
}

function sameOr(before: TlsMaterial | undefined, after: TlsMaterial): TlsMaterial {
  return before && before.ca === after.ca && before.cert === after.cert && before.key === after.key ? before : after;
}
