import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { systemClock } from '../../lib/clock.ts';
import type { Kube } from '../kube.ts';

/** What an admission webhook says: `message` denies, `patch` (RFC 6902) changes. */
export interface Verdict {
  readonly message?: string;
  readonly patch?: readonly object[];
}

/** How a webhook is registered. */
export interface WebhookOptions {
  /** Prefix of its name; objects with the label `hooked: <name>` go through it when they are created or updated. */
  readonly name: string;
  readonly namespace: string;
  readonly kind: 'Mutating' | 'Validating';
  readonly decide: (object: { readonly metadata: { readonly name: string } }) => Verdict;
}

/** A real admission webhook: an HTTPS server that the API server calls, failures of which refuse the request. */
export interface Webhook extends AsyncDisposable {
  /** As errors name it. */
  readonly name: string;
  /** Stops answering; the registration stays. */
  down(): Promise<void>;
  /** Answers again, at the same port. */
  up(): Promise<void>;
}

/** Starts and registers one; it is called from when this resolves until it is disposed of. */
export async function startWebhook(server: Kube, options: WebhookOptions): Promise<Webhook> {
  const { key, cert } = await certificate();
  let calls = 0;
  const listen = async (port: number): Promise<Server> => {
    const https = createServer({ key, cert }, async (request, response) => {
      calls += 1;
      const review = (await json(request)) as Review;
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(answer(review, options.decide(review.request.object))));
    });
    https.listen(port, '127.0.0.1');
    await once(https, 'listening');
    return https;
  };
  let https = await listen(0);
  const { port } = https.address() as AddressInfo;
  const name = `${options.name}.${options.namespace}.example.org`;
  const path = `/apis/admissionregistration.k8s.io/v1/${options.kind.toLowerCase()}webhookconfigurations`;
  const registered = await server.request('POST', path, registration(name, options, `https://127.0.0.1:${port}/`, cert));
  if (registered.status !== 201) throw new Error(JSON.stringify(registered.body));
  const down = async () => {
    https.closeAllConnections();
    if (https.listening) await new Promise((resolve) => https.close(resolve));
  };
  const probe = { metadata: { generateName: 'probe-', labels: { hooked: options.name } } };
  const signal = AbortSignal.timeout(30_000);
  while (calls === 0) {
    await server.request('POST', `/api/v1/namespaces/${options.namespace}/configmaps?dryRun=All`, probe);
    await systemClock.sleep(20, signal);
  }
  return {
    name,
    down,
    async up() {
      https = await listen(port);
    },
    async [Symbol.asyncDispose]() {
      await server.request('DELETE', `${path}/${name}`);
      await down();
    },
  };
}

interface Review {
  readonly apiVersion: string;
  readonly kind: string;
  readonly request: { readonly uid: string; readonly object: { readonly metadata: { readonly name: string } } };
}

function answer({ apiVersion, kind, request: { uid } }: Review, { message, patch }: Verdict): object {
  const response = {
    ...{ uid, allowed: message === undefined },
    ...(message !== undefined && { status: { message } }),
    ...(patch && { patchType: 'JSONPatch', patch: Buffer.from(JSON.stringify(patch)).toString('base64') }),
  };
  return { apiVersion, kind, response };
}

function registration(name: string, { name: label, namespace, kind }: WebhookOptions, url: string, cert: string): object {
  const webhook = {
    ...{ name, admissionReviewVersions: ['v1'], sideEffects: 'None', failurePolicy: 'Fail', timeoutSeconds: 5 },
    clientConfig: { url, caBundle: Buffer.from(cert).toString('base64') },
    namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } },
    objectSelector: { matchLabels: { hooked: label } },
    rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE', 'UPDATE'], resources: ['configmaps'] }],
  };
  const apiVersion = 'admissionregistration.k8s.io/v1';
  return { apiVersion, kind: `${kind}WebhookConfiguration`, metadata: { name }, webhooks: [webhook] };
}

async function certificate(): Promise<{ readonly key: string; readonly cert: string }> {
  const dir = await mkdtemp(join(tmpdir(), 'brokkr-webhook-'));
  try {
    const files = ['-keyout', join(dir, 'key'), '-out', join(dir, 'cert')];
    const subject = ['-subj', '/CN=webhook', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    await promisify(execFile)('openssl', ['req', '-x509', ...key, '-days', '2', ...subject, ...files]);
    return { key: await readFile(join(dir, 'key'), 'utf8'), cert: await readFile(join(dir, 'cert'), 'utf8') };
  } finally {
    await rm(dir, { recursive: true });
  }
}
