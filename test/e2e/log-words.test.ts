import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Blackhole, openBlackhole } from '../blackhole.ts';
import { useKube } from '../kube.ts';
import { testDatabase } from '../postgres.ts';
import { type LogLine, startBroker, startProcess } from '../processes.ts';
import { type Rig, rigOn } from './rig.ts';

let rig: Rig;
let hole: Blackhole;

beforeAll(async () => {
  const database = await testDatabase();
  rig = rigOn(await useKube(), await startBroker({ databaseUrl: database.url }), database.url);
  hole = await openBlackhole();
});
afterAll(() => hole[Symbol.asyncDispose]());

/** Who cannot be reached, and the code of that. A machine without any network has no server of names to say that a name is unknown. */
const FAULTS: Readonly<Record<string, { readonly authority: () => string; readonly code: RegExp }>> = {
  'a name that does not exist': { authority: () => 'no-such-host.invalid:3000', code: /^(nxdomain|dns)$/ },
  'a port where nobody listens': { authority: () => '127.0.0.1:1', code: /^refused$/ },
  'a way on which everything is dropped': { authority: () => `127.0.0.1:${hole.port}`, code: /^timeout$/ },
};

/** What the documented grep finds (docs/network-checks.md). */
const found = ({ code, error, ...line }: LogLine) =>
  /connection|error|timeout/i.test(JSON.stringify({ code, error, ...line })) && typeof error === 'string';

// N-147
describe('a log that is searched for connection, error or timeout', () => {
  it.each(Object.keys(FAULTS))('has a line with a code about %s, of an agent', async (what) => {
    const { authority = () => '', code = /./ } = FAULTS[what] ?? {};
    const env = { BROKKR__AGENT__TRANSPORT: 'poll' };
    const agent = await rig.start(await rig.register(), { brokerUrl: `http://${authority()}`, env });
    const line = await agent.line((each) => found(each) && code.test(String(each.code)));
    expect(line).toMatchObject({ level: 'warn', msg: 'connection to the broker lost', error: expect.stringContaining('): ') });
    await agent.stop();
  });

  it.each(Object.keys(FAULTS))('has a line with a code about %s, of a broker and its database', async (what) => {
    const { authority = () => '', code = /./ } = FAULTS[what] ?? {};
    const broker = await startProcess('broker/main.ts', ['serve'], {
      DATABASE_URL: `postgresql://someone:secret@${authority()}/brokkr`,
      BROKKR__DATABASE__CONNECT_TIMEOUT: '0',
      BROKKR__DATABASE__ACQUIRE_TIMEOUT: '1s',
    });
    const line = await broker.line(({ msg }) => msg === 'broker stopped');
    expect(line).toMatchObject({
      code: expect.stringMatching(code),
      error: expect.stringContaining(authority().split(':')[0] ?? ''),
    });
    expect(found(line)).toBe(true);
    expect(JSON.stringify(broker.log)).not.toContain('secret');
  });
});
