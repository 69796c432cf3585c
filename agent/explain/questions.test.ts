import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { createLog } from '#lib/log.ts';
import { abortable } from '#lib/signal.ts';
import { ExplanationSchema } from '#proto/brokkr/v1/explain_pb.js';
import { type Query, QuerySchema } from '#proto/brokkr/v1/sync_pb.js';
import { FakeClock } from '../../test/fake-clock.ts';
import { Questions, type QuestionsDeps } from './questions.ts';

const query = (id: string): Query => create(QuerySchema, { id, timeoutMs: 1000, body: { case: 'explain', value: {} } });

function rig(explain: QuestionsDeps['explain']) {
  const clock = new FakeClock();
  const stop = new AbortController();
  const questions = new Questions({ explain, clock, log: createLog('test', { level: 'fatal' }) });
  return { clock, stop, ask: (id: string) => questions.answer(query(id), stop.signal), questions };
}

/** Work that ends when it is told to. */
function heldBack() {
  const open: (() => void)[] = [];
  const explain: QuestionsDeps['explain'] = async () => {
    await new Promise<void>((resolve) => open.push(resolve));
    return create(ExplanationSchema, { next: 'x' });
  };
  return { open, explain };
}

describe('questions', () => {
  it('are worked on four at a time, wait sixteen deep, and are refused beyond', async () => {
    const { open, explain } = heldBack();
    const { ask } = rig(explain);
    const asked = Array.from({ length: 20 }, (_, index) => ask(`${index}`));
    await expect.poll(() => open.length).toBe(4);
    expect(await ask('one too many')).toMatchObject({
      id: 'one too many',
      body: { case: 'failure', value: expect.stringContaining('20') },
    });
    for (let done = 0; done < 20; done++) {
      await expect.poll(() => open.length).toBeGreaterThan(done);
      open[done]?.();
    }
    const answers = await Promise.all(asked);
    expect(answers.map((answer) => answer?.body.case)).toEqual(Array.from({ length: 20 }, () => 'explanation'));
    const last = ask('room again');
    await expect.poll(() => open.length).toBe(21);
    open[20]?.();
    expect(await last).toMatchObject({ id: 'room again' });
  });

  it('are dropped once nobody waits for the answer, and when the session ends', async () => {
    const waiting: QuestionsDeps['explain'] = (_, signal) => abortable(new Promise<never>(() => undefined), signal);
    const late = rig(waiting);
    const asked = late.ask('late');
    await late.clock.advance(1000);
    expect(await asked).toBeUndefined();
    const ended = rig(waiting);
    const cut = ended.ask('cut');
    ended.stop.abort(new Error('the session has ended'));
    expect(await cut).toBeUndefined();
  });

  it('that cannot be answered say why; of a newer kind they stay without answer', async () => {
    const { ask, questions, stop } = rig(() => Promise.reject(new Error('the agent has nothing of this stack')));
    expect(await ask('a')).toMatchObject({ id: 'a', body: { case: 'failure', value: 'the agent has nothing of this stack' } });
    expect(await questions.answer(create(QuerySchema, { id: 'b', timeoutMs: 1000 }), stop.signal)).toBeUndefined();
  });
});
