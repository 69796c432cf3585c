import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { command } from '../../hack/interop/command.ts';
import { configMap, type Endpoint, type Endpoints, startEndpoints } from './endpoints.ts';

const signal = new AbortController().signal;
let endpoints: Endpoints;
beforeAll(async () => {
  await command('curl', ['--version'], { env: process.env }, signal);
  endpoints = await startEndpoints(signal);
});

interface Answer {
  readonly status: number;
  /** As curl says it: 1.1 or 2. */
  readonly http: string;
  readonly text: string;
}

/** One call with curl as the admin. */
async function curl({ scheme, target, caFile }: Endpoint, path: string, ...options: readonly string[]): Promise<Answer> {
  const trust = caFile === undefined ? [] : ['--cacert', caFile];
  const common = ['-sS', '-q', '--max-time', '20', '--noproxy', '*', '-H', `authorization: ${endpoints.broker.adminPak}`];
  const url = `${scheme}://${target}${path}`;
  const output = await command(
    'curl',
    [...common, ...trust, '-w', '\n%{http_code} %{http_version}', ...options, url],
    { env: process.env },
    signal,
  );
  const at = output.lastIndexOf('\n');
  const [status, http] = output.slice(at + 1).split(' ');
  return { status: Number(status), http: http ?? '', text: output.slice(0, at) };
}

const JSON_BODY = ['-H', 'content-type: application/json', '--data-binary'] as const;
const YAML_BODY = ['-H', 'content-type: application/yaml', '--data-binary'] as const;

const variants = [
  { endpoint: 'plain', options: ['--http1.1'], http: '1.1' },
  { endpoint: 'plain', options: ['--http2-prior-knowledge'], http: '2' },
  { endpoint: 'tls', options: ['--http1.1'], http: '1.1' },
  { endpoint: 'tls', options: ['--http2'], http: '2' },
] as const;

describe.each(variants)('curl $options on the $endpoint port', ({ endpoint: which, options, http }) => {
  const prefix = `curl-${which}-${http.replace('.', '')}`;
  const call = (path: string, ...more: string[]) => curl(endpoints[which], path, ...options, ...more);

  it('speaks REST with JSON', async () => {
    const created = await call('/api/v1/stacks', ...JSON_BODY, JSON.stringify({ name: `${prefix}-rest` }));
    expect(created).toMatchObject({ status: 201, http });
    const { id } = JSON.parse(created.text) as { id: string };
    const read = await call(`/api/v1/stacks/${id}`);
    expect(read).toMatchObject({ status: 200, http });
    expect(JSON.parse(read.text)).toMatchObject({ id, name: `${prefix}-rest` });
  });

  it('speaks Connect with JSON', async () => {
    const created = await call(
      '/brokkr.v1.StackService/CreateStack',
      ...JSON_BODY,
      JSON.stringify({ name: `${prefix}-connect` }),
    );
    expect(created).toMatchObject({ status: 200, http });
    const { stack } = JSON.parse(created.text) as { stack: { id: string; name: string } };
    expect(stack.name).toBe(`${prefix}-connect`);
    const missing = await call(
      '/brokkr.v1.StackService/GetStack',
      ...JSON_BODY,
      JSON.stringify({ id: '00000000-0000-4000-8000-000000000001' }),
    );
    expect(missing).toMatchObject({ status: 404, http });
    expect(JSON.parse(missing.text)).toMatchObject({ code: 'not_found' });
  });

  it('publishes a raw YAML body and reads the same text back', async () => {
    const yaml = configMap(prefix);
    const applied = await call(`/api/v1/stacks/by-name/${prefix}-yaml/apply?label=curl`, '-X', 'PUT', ...YAML_BODY, yaml);
    expect(applied).toMatchObject({ status: 200, http });
    const { stack } = JSON.parse(applied.text) as { stack: { id: string; generation: number; deployment_object_id: string } };
    expect(stack.generation).toBe(1);
    const text = await call(`/api/v1/deployment-objects/${stack.deployment_object_id}`, '-H', 'accept: application/yaml');
    expect(text).toMatchObject({ status: 200, http, text: yaml });
    const published = await call(`/api/v1/stacks/${stack.id}/deployment-objects`, ...YAML_BODY, configMap(`${prefix}-2`));
    expect(published).toMatchObject({ status: 201, http });
  });

  it('is answered by the probes without a key', async () => {
    expect(await call('/healthz', '-H', 'authorization:')).toMatchObject({ status: 200, http });
    expect(await call('/readyz', '-H', 'authorization:')).toMatchObject({ status: 200, http });
  });

  it('sends a body larger than the first flow control window', async () => {
    const yaml = `${configMap(`${prefix}-large`)}  large: "${'x'.repeat(200_000)}"\n`.replace('data: {key: "1"}', 'data:');
    const file = join(endpoints.dir, `${prefix}.yaml`);
    await writeFile(file, yaml);
    const applied = await call(`/api/v1/stacks/by-name/${prefix}-large/apply`, '-X', 'PUT', ...YAML_BODY, `@${file}`);
    expect(applied).toMatchObject({ status: 200, http });
  });
});

describe('one port', () => {
  it('serves an upgrade request (h2c) as HTTP/1.1', async () => {
    expect(await curl(endpoints.plain, '/healthz', '--http2')).toMatchObject({ status: 200 });
  });

  it('answers a plain request on the TLS port with a clear 400', async () => {
    const plain: Endpoint = { name: 'plain text', scheme: 'http', target: endpoints.tls.target };
    const answer = await curl(plain, '/healthz', '--http1.1');
    expect(answer).toMatchObject({ status: 400, http: '1.1' });
    expect(answer.text).toMatch(/https|TLS/i);
  });

  it('offers h2 and http/1.1 by ALPN', async () => {
    for (const protocol of ['h2', 'http/1.1']) {
      const args = [
        's_client',
        '-connect',
        endpoints.tls.target,
        '-alpn',
        protocol,
        '-CAfile',
        endpoints.caFile,
        '-verify_return_error',
        '-no_ign_eof',
      ];
      const output = await command(
        'sh',
        ['-c', `exec openssl "$@" </dev/null 2>&1`, 'sh', ...args],
        { env: process.env },
        signal,
      );
      expect(output).toContain(`ALPN protocol: ${protocol}`);
    }
  });

  it('is refused by curl when its certificate is not trusted', async () => {
    const { name, scheme, target } = endpoints.tls;
    await expect(curl({ name, scheme, target }, '/healthz')).rejects.toThrow(/certificate/);
  });
});
