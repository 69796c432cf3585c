import { connect } from 'node:net';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { createAuthority } from '../test/certificate-authority.ts';
import { curlGateway, hello, say, startGateway, startHttp2Upstream } from '../test/gateway-rig.ts';
import { temporaryDirectory } from '../test/processes.ts';
import { scrape } from '../test/scrape.ts';

const DAY_SECONDS = 86_400;

it('measures connections, bytes, handshakes, certificates and upstreams that are not there', async () => {
  const [home, authority] = [await temporaryDirectory(), await createAuthority('own authority')];
  const [here, expired] = [join(home, 'here'), join(home, 'expired')];
  await authority.issue(here, { hosts: ['127.0.0.1'], fromDays: -1, toDays: 10 });
  await authority.issue(expired, { hosts: ['old.test'], fromDays: -3, toDays: -1 });
  await using upstream = await startHttp2Upstream(hello);
  const gateway = await startGateway([here, expired], [upstream.url, 'http://127.0.0.1:1']);
  const read = () => scrape(gateway.adminUrl, 'brokkr_gateway_');
  await expect
    .poll(async () => (await read()).get('upstream_failures_total{endpoint="127.0.0.1:1",kind="refused"}'))
    .toBeGreaterThan(0);

  expect(await curlGateway(authority.certFile, gateway.port, '/')).toBe('hello 200 2');
  await say('curl', ['-sS', `https://127.0.0.1:${gateway.port}/`]); // does not know the authority
  await say('curl', ['-sS', `http://127.0.0.1:${gateway.port}/`]);
  const held = connect(gateway.port, '127.0.0.1');
  await expect.poll(async () => (await read()).get('connections')).toBe(1);
  await expect.poll(async () => (await read()).get('tls_handshake_failures_total{reason="certificate"}')).toBe(1);
  const values = await read();
  held.destroy();
  expect(Object.fromEntries(values)).toMatchObject({
    connections_accepted_total: 4,
    connections_dropped_total: 0,
    'tls_handshake_failures_total{reason="plain"}': 1,
    'tls_handshake_failures_total{reason="timeout"}': 0,
    'requests_total{version="2",status="2xx"}': 1,
    'upstream_healthy{endpoint="127.0.0.1:1"}': 0,
  });
  expect(values.get('network_bytes_total{direction="in"}')).toBeGreaterThan(500);
  expect(values.get('network_bytes_total{direction="out"}')).toBeGreaterThan(1_000);
  const days = (dir: string) => (values.get(`certificate_expiry_seconds{file="${join(dir, 'tls.crt')}"}`) ?? 0) / DAY_SECONDS;
  expect(days(here)).toBeCloseTo(10, 0);
  expect(days(expired)).toBeCloseTo(-1, 0);
  expect(values.get('tcp_segments_total{sent="first"}')).toBeGreaterThan(0);
  await expect.poll(async () => (await read()).get('connections')).toBe(0);
});
