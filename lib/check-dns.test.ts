import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { afterAll, describe, expect, it } from 'vitest';
import { checkDns } from './check-dns.ts';
import { systemClock } from './clock.ts';

const { signal } = new AbortController();
const closing: (() => unknown)[] = [];
afterAll(async () => {
  for (const close of closing) await close();
});

const NOERROR = 0;
const SERVFAIL = 2;
const NXDOMAIN = 3;

/** A DNS server of two names; `udp` and `tcp` say whether it answers there, `fail` with which code. */
async function serveNames({ udp = true, tcp = true, fail = NOERROR } = {}) {
  const answer = (question: Buffer): Buffer => {
    const end = question.indexOf(0, 12) + 5;
    const name = question.subarray(13, question.indexOf(0, 12)).toString('latin1');
    const isV6 = question.readUInt16BE(end - 4) === 28;
    const known = name.startsWith('broker') && (isV6 ? name.includes('six') : !name.includes('six'));
    const code = fail || (name.startsWith('broker') ? NOERROR : NXDOMAIN);
    const header = Buffer.from([
      question[0]!,
      question[1]!,
      0x81,
      0x80 | code,
      0,
      1,
      0,
      code === NOERROR && known ? 2 : 0,
      0,
      0,
      0,
      0,
    ]);
    const alias = Buffer.from([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
    const data = isV6 ? Buffer.from('20010db8000000000000000000000007', 'hex') : Buffer.from([10, 0, 0, 7]);
    const record = Buffer.concat([Buffer.from([0xc0, 12, 0, isV6 ? 28 : 1, 0, 1, 0, 0, 0, 9, 0, data.length]), data]);
    return Buffer.concat([header, question.subarray(12, end), ...(code === NOERROR && known ? [alias, record] : [])]);
  };
  const stream = createServer((socket) => {
    socket.on('data', (got) => {
      const reply = answer(got.subarray(2));
      const length = Buffer.alloc(2);
      length.writeUInt16BE(reply.length);
      socket.write(Buffer.concat([length, reply.subarray(0, 5)]));
      socket.write(reply.subarray(5));
    });
  });
  stream.listen(0, '127.0.0.1');
  await once(stream, 'listening');
  const { port } = stream.address() as AddressInfo;
  if (!tcp) stream.close();
  else closing.push(() => stream.close());
  const datagrams = createSocket('udp4');
  datagrams.on('message', (got, { port: to }) => udp && datagrams.send(answer(got), to));
  datagrams.bind(port, '127.0.0.1');
  await once(datagrams, 'listening');
  closing.push(() => datagrams.close());
  return { host: '127.0.0.1', port };
}

const check = (name: string, server: { readonly host: string; readonly port: number } | undefined, timeoutMs = 5_000) =>
  checkDns(name, { server }, { clock: systemClock, timeoutMs }, signal);

describe('a check of a name', () => {
  it('is ok when the server knows it, over UDP and TCP', async () => {
    const report = await check('broker.example', await serveNames());
    expect(report).toMatchObject({ result: 'ok', steps: [{ said: '10.0.0.7' }, { said: '10.0.0.7' }] });
  });

  it('knows addresses of IPv6', async () => {
    const report = await check('broker-six.example', await serveNames());
    expect(report).toMatchObject({ result: 'ok', steps: [{ said: '2001:db8:0:0:0:0:0:7' }, {}] });
  });

  it('tells a name that the server does not know', async () => {
    const report = await check('nobody.example', await serveNames());
    expect(report).toMatchObject({ result: 'nxdomain', steps: [{ ok: true, said: 'NXDOMAIN' }, { said: 'NXDOMAIN' }] });
    expect(report.next).toContain('NAME.NAMESPACE');
  });

  it('tells a server in trouble', async () => {
    const report = await check('broker.example', await serveNames({ fail: SERVFAIL }));
    expect(report).toMatchObject({ result: 'dns', reason: 'the server answers SERVFAIL about broker.example' });
  });

  it('tells a server that answers over UDP and not over TCP', async () => {
    const report = await check('broker.example', await serveNames({ tcp: false }));
    expect(report).toMatchObject({
      result: 'refused',
      steps: [{ ok: true }, { ok: false, tried: expect.stringMatching(/over TCP$/) }],
    });
  });

  it('tells a server that does not answer over UDP', async () => {
    const report = await check('broker.example', await serveNames({ udp: false }), 300);
    expect(report).toMatchObject({
      result: 'timeout',
      steps: [{ ok: false, tried: expect.stringMatching(/over UDP$/) }, { ok: true }],
    });
  });

  it('resolves as connections do when no server is named, whatever DNS says of it', async () => {
    const { steps } = await check('localhost', undefined, 1_000);
    expect(steps[0]).toMatchObject({ tried: 'resolve localhost', ok: true, said: expect.stringMatching(/127\.0\.0\.1/) });
  });
});
