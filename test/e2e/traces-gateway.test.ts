import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Authority, createAuthority } from '../certificate-authority.ts';
import { dialGateway, startGateway, startHttp2Upstream } from '../gateway-rig.ts';
import { type OtlpReceiver, startOtlpReceiver } from '../otlp/receiver.ts';
import { temporaryDirectory } from '../processes.ts';

// Issue 6, traces through the gateway.

const TRACE = 'c'.repeat(32);
const CALLER = `00-${TRACE}-${'d'.repeat(16)}-01`;
let edge: Authority;
let home: string;
let receiver: OtlpReceiver;
beforeAll(async () => {
  [edge, home, receiver] = await Promise.all([createAuthority('edge'), temporaryDirectory(), startOtlpReceiver()]);
  await edge.issue(home, { hosts: ['IP:127.0.0.1'] });
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

const traced = (samplingRate: string) => ({
  BROKKR__TELEMETRY__ENABLED: 'true',
  BROKKR__TELEMETRY__OTLP_ENDPOINT: receiver.url,
  BROKKR__TELEMETRY__SAMPLING_RATE: samplingRate,
});

describe('a request through the gateway', () => {
  it('keeps its traceparent when the gateway makes no traces', async () => {
    const { seen, line } = await passOn(CALLER, {});
    expect(seen).toBe(CALLER);
    expect(line).not.toHaveProperty('trace_id');
  });

  it('is a span between caller and upstream, which the access log names', async () => {
    const { seen, line } = await passOn(CALLER, traced('0'));
    const [span] = await receiver.trace(TRACE, ({ length }) => length === 1);
    expect(span).toMatchObject({
      service: 'brokkr-gateway',
      name: 'GET',
      kind: 'SERVER',
      parentSpanId: 'd'.repeat(16),
      attributes: { 'http.request.method': 'GET', 'url.path': '/some/where', 'http.response.status_code': 503 },
      error: 'status 503',
    });
    expect(seen).toBe(`00-${TRACE}-${span?.spanId}-01`);
    expect(line).toMatchObject({ trace_id: TRACE, span_id: span?.spanId });
    expect(JSON.stringify(span)).not.toContain('secret');
  });

  it('is not sampled behind the gateway when the gateway decided so', async () => {
    const { seen, line } = await passOn(undefined, traced('0'));
    expect(seen).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    expect(line).not.toHaveProperty('trace_id');
  });
});
