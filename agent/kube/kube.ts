import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { explainFailure, failureCode } from '#lib/reach-failure.ts';
import { Credentials } from './credentials.ts';
import { classify } from './errors.ts';
import type { Env, KubeCredentials } from './kubeconfig.ts';
import { LIMITER_DEFAULTS, Limiter, type LimiterOptions } from './limiter.ts';
import {
  type Applied,
  type ApplyRequest,
  applyObject,
  createObject,
  findObject,
  type KubeObject,
  type ListPage,
  type ListRequest,
  listObjects,
  type ObjectMeta,
  type ObjectRef,
  patchObject,
  type Removed,
  type RemoveRequest,
  removeObject,
} from './objects.ts';
import { OpenApi } from './openapi.ts';
import { Reflector, type ReflectorObserver, type ReflectorOptions } from './reflector.ts';
import type { Resource } from './resource.ts';
import { Resources } from './resources.ts';
import { ServerClock } from './server-clock.ts';
import { KubeTransport, type RequestObserver } from './transport.ts';

/** What the client needs. */
export interface KubeDeps {
  readonly clock: Clock;
  readonly log: Logger;
  /** In [0, 1). */
  readonly random: () => number;
  /** Passed to credential plugins. */
  readonly env: Env;
  /** For metrics. */
  readonly observe?: {
    readonly request?: RequestObserver;
    readonly reflector?: ReflectorObserver;
    /** The server went down. */
    readonly down?: () => void;
  };
}

/** Settings of the client. */
export interface KubeOptions {
  readonly credentials: KubeCredentials;
  /** Directory for the server's OpenAPI documents; belongs to this cluster. */
  readonly openapiDir: string;
  readonly limiter?: LimiterOptions;
}

const NAMESPACES: Resource = {
  group: '',
  version: 'v1',
  kind: 'Namespace',
  plural: 'namespaces',
  namespaced: false,
  verbs: ['get'],
};

/** One API server. Opens no connection before the first call. Failed calls reject with `KubeError`; see `classify` for what to do then. */
export class Kube {
  /** HTTP, for what has no method here. */
  readonly transport: KubeTransport;
  /** The clock of the server. */
  readonly serverClock: ServerClock;
  /** Discovery. */
  readonly resources: Resources;
  /** Schemas. */
  readonly openapi: OpenApi;
  /** How many writes may be in flight. The methods here do not use it by themselves: wrap them in `limiter.run`. */
  readonly limiter: Limiter;
  /** Namespace of the context or of the pod. */
  readonly namespace: string | undefined;
  readonly #deps: KubeDeps;

  /** Use `openKube`. */
  constructor(deps: KubeDeps, options: KubeOptions) {
    const { clock, log, env } = deps;
    const serverClock = new ServerClock(clock);
    const credentials = new Credentials({ clock, serverClock, log, env }, options.credentials);
    const downChanged = (isDown: boolean, failure?: unknown) => {
      const why = { code: failureCode(failure), error: explainFailure(failure) };
      if (isDown) log.warn(why, 'API server is down: nothing but a probe is sent to it');
      else log.info('API server is back');
      if (isDown) deps.observe?.down?.();
    };
    this.#deps = deps;
    this.transport = new KubeTransport(
      { clock, serverClock, credentials, observe: deps.observe?.request, downChanged },
      options.credentials,
    );
    this.serverClock = serverClock;
    this.resources = new Resources({ transport: this.transport, clock });
    this.openapi = new OpenApi({ transport: this.transport, clock }, options.openapiDir);
    this.limiter = new Limiter(clock, options.limiter ?? LIMITER_DEFAULTS);
    this.namespace = options.credentials.namespace;
  }

  /** See `applyObject`. */
  apply(request: ApplyRequest, signal: AbortSignal): Promise<Applied> {
    return applyObject(this.transport, request, signal);
  }

  /** The whole object, or undefined. */
  find(ref: ObjectRef, signal: AbortSignal): Promise<KubeObject | undefined> {
    return findObject(this.transport, ref, 'full', signal);
  }

  /** The object's metadata, or undefined. */
  async findMetadata(ref: ObjectRef, signal: AbortSignal): Promise<ObjectMeta | undefined> {
    return (await findObject(this.transport, ref, 'metadata', signal))?.metadata;
  }

  /** See `listObjects`. */
  list(request: ListRequest, signal: AbortSignal): AsyncGenerator<ListPage> {
    return listObjects(this.transport, request, signal);
  }

  /** See `createObject`. */
  create(request: Parameters<typeof createObject>[1], signal: AbortSignal): Promise<KubeObject> {
    return createObject(this.transport, request, signal);
  }

  /** See `patchObject`. */
  patchJson(request: Parameters<typeof patchObject>[1], signal: AbortSignal): Promise<ObjectMeta> {
    return patchObject(this.transport, request, signal);
  }

  /** See `removeObject`. */
  remove(request: RemoveRequest, signal: AbortSignal): Promise<Removed> {
    return removeObject(this.transport, request, signal);
  }

  /** A task that reflects one kind; run it to start it. */
  reflector(options: ReflectorOptions): Reflector {
    const { clock, random, log, observe } = this.#deps;
    return new Reflector({ transport: this.transport, clock, random, log, observe: observe?.reflector }, options);
  }

  /** `gitVersion` of the server, such as `v1.36.3`. */
  async version(signal: AbortSignal): Promise<string> {
    const { value } = await this.transport.json('GET', '/version', {}, signal);
    return (value as { readonly gitVersion: string }).gitVersion;
  }

  /** See `KubeTransport.ready`. */
  ready(signal: AbortSignal): Promise<boolean> {
    return this.transport.ready(signal);
  }

  /**
   * What identifies the cluster: the UID of `kube-system`, or that of the agent's own namespace when it may not read the former.
   * Undefined when it may read neither. Rejects when the server cannot be asked.
   */
  async clusterUid(signal: AbortSignal): Promise<string | undefined> {
    for (const name of ['kube-system', this.namespace]) {
      if (name === undefined) continue;
      try {
        const metadata = await this.findMetadata({ resource: NAMESPACES, name }, signal);
        if (metadata) return metadata.uid;
      } catch (error) {
        if (classify(error) !== 'permission') throw error;
      }
    }
    return undefined;
  }

  /** Ends all connections; calls in flight reject. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.transport.close();
  }
}

/** A client for one cluster, to be disposed with `await using`. */
export function openKube(deps: KubeDeps, options: KubeOptions): Kube {
  return new Kube(deps, options);
}
