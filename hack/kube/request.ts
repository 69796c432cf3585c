import { Agent, request as httpsRequest } from 'node:https';

/** A server of the Kubernetes API and who asks. */
export interface KubeEndpoint {
  /** `https://host:port`. */
  readonly url: string;
  /** PEM. */
  readonly caData: string;
  /** Bearer token; empty: anonymous. */
  readonly token: string;
}

/** One request. A body that is not a string is sent as JSON; a PATCH needs its own content-type header. */
export interface KubeRequest {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** The answer, whatever its status. */
export interface KubeResponse {
  readonly status: number;
  /** Parsed when it is JSON, else text. */
  // biome-ignore lint/suspicious/noExplicitAny: test code reads Kubernetes objects without declaring them
  readonly body: any;
}

/**
 * A small client for set-up and assertions: one request at a time matters here, not speed. Keeps idle connections, which
 * do not hold the process. Rejects when there is no answer; there is no retry.
 */
export function createKubeClient({ url, caData, token }: KubeEndpoint) {
  const agent = new Agent({ ca: caData, keepAlive: true, maxSockets: 16 });
  return (request: KubeRequest, signal: AbortSignal): Promise<KubeResponse> => {
    const payload = toText(request.body);
    const headers: Record<string, string> = { accept: 'application/json', ...request.headers };
    if (token !== '') headers.authorization = `Bearer ${token}`;
    if (payload !== undefined) headers['content-type'] ??= 'application/json';
    return new Promise((resolve, reject) => {
      const outgoing = httpsRequest(`${url}${request.path}`, { agent, method: request.method, headers, signal }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.once('error', reject);
        response.once('end', () => {
          const text = Buffer.concat(chunks).toString('utf8');
          const json = response.headers['content-type']?.includes('json') === true && text !== '';
          resolve({ status: response.statusCode ?? 0, body: json ? JSON.parse(text) : text });
        });
      });
      outgoing.once('error', reject);
      outgoing.end(payload);
    });
  };
}

/** What `createKubeClient` returns. */
export type KubeClient = ReturnType<typeof createKubeClient>;

function toText(body: unknown): string | undefined {
  return body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
}
