import { type HttpProxy, type ProxiedRequest, startKubeProxy } from '../http-proxy.ts';
import type { Kube } from '../kube.ts';

/** What an engine sends, and a way to send it again. */
export interface Recorder extends AsyncDisposable {
  /** Where the engine is to send its requests. */
  readonly url: string;
  readonly proxy: HttpProxy;
  /** Applies that were sent for good, those of the inventory aside, oldest first. */
  applies(): ProxiedRequest[];
  /** Sends a recorded apply once more, byte by byte; the resource version after it. */
  again(request: ProxiedRequest): Promise<string>;
}

/** Opens a recorder before an API server. */
export async function openRecorder(server: Kube): Promise<Recorder> {
  const proxy = await startKubeProxy({ target: server.url, ca: server.caData, keepBodies: true });
  return {
    url: proxy.url,
    proxy,
    applies: () =>
      proxy.requests.filter(
        ({ method, path, headers, status }) =>
          method === 'PATCH' &&
          status !== undefined &&
          status < 300 &&
          headers['content-type'] === 'application/apply-patch+yaml' &&
          !path.includes('dryRun=') &&
          !path.includes('/brokkr-inv-'),
      ),
    async again({ path, headers, body }) {
      const answer = await fetch(`${proxy.url}${path}`, {
        method: 'PATCH',
        headers: { authorization: headers.authorization ?? '', 'content-type': 'application/apply-patch+yaml' },
        body: body ?? '',
      });
      const object = (await answer.json()) as { readonly metadata: { readonly resourceVersion: string } };
      if (answer.status !== 200) throw new Error(`apply answered ${answer.status}: ${JSON.stringify(object)}`);
      return object.metadata.resourceVersion;
    },
    [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose](),
  };
}
