import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Authority, createAuthority } from '../certificate-authority.ts';
import { dialGateway, startGateway, startHttp2Upstream } from '../gateway-rig.ts';
import { beginTrace } from '../otlp/caller.ts';
import { type OtlpReceiver, startOtlpReceiver } from '../otlp/receiver.ts';
import { temporaryDirectory } from '../processes.ts';

// Issue 6, traces through the gateway.

const { traceId, spanId, headers: caller } = beginTrace();
let edge: Authority;
let home: string;
let receiver: OtlpReceiver;
beforeAll(async () => {
  [edge, home, receiver] = await Promise.all([createAuthority('edge'), temporaryDirectory(), startOtlpReceiver()]);
  await edge.issue(home, { hosts: ['127.0.0.1'] });
});

/** What the upstream is shown of a request with this header, through a gateway with these settings; and the gateway's access log. */
async function passOn(traceparent: string | undefined, env: Readonly<Record<string, string>>) {
  const seen: unknown[] = [];
  await using upstream = await startHttp2Upstream((stream, headers) => {
    seen.push(headers.traceparent);
    stream.respond({ ':status': 503 }, { endStream: true });
  });
  const gateway = await startGateway([home], [upstream.url], env);
  using session = dialGateway(gateway.port, await readFile(edge.certFile, 'utf8'));
  session.request({ ':path': '/some/where?key=secret', ...(traceparent && { traceparent }) }).resume();
  const line = await gateway.line(({ msg }) => msg === 'request');
  await gateway.stop();
  return { seen: String(seen[0]), line };
}

describe('a request through the gateway', () => {
  it('keeps its traceparent when the gateway makes no traces', async () => {
    const { seen, line } = await passOn(caller.traceparent, {});
    expect(seen).toBe(caller.traceparent);
    expect(line).not.toHaveProperty('trace_id');
  });

  it('is a span between caller and upstream, which the access log names', async () => {
    const { seen, line } = await passOn(caller.traceparent, receiver.settings('0'));
    const [span] = await receiver.trace(traceId, ({ length }) => length === 1);
    expect(span).toMatchObject({
      service: 'brokkr-gateway',
      name: 'GET',
      kind: 'SERVER',
      parentSpanId: spanId,
      attributes: { 'http.request.method': 'GET', 'url.path': '/some/where', 'http.response.status_code': 503 },
      error: 'status 503',
    });
    expect(seen).toBe(`00-${traceId}-${span?.spanId}-01`);
    expect(line).toMatchObject({ trace_id: traceId, span_id: span?.spanId });
    expect(JSON.stringify(span)).not.toContain('secret');
  });

  it('is not sampled behind the gateway when the gateway decided so', async () => {
    const { seen, line } = await passOn(undefined, receiver.settings('0'));
    expect(seen).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    expect(line).not.toHaveProperty('trace_id');
  });
});
