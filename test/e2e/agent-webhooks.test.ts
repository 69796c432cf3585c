import { beforeAll, describe, expect, it } from 'vitest';
import { opensslSignature, type Received, startWebhookSink } from '../webhook-sink.ts';
import { type Rig, startRig, until } from './rig.ts';

let rig: Rig;
beforeAll(async () => {
  rig = await startRig();
}, 240_000);

describe('webhooks sent by an agent process', () => {
  it('are held longer than a lease, by one agent, and go on when it is killed', { timeout: 240_000 }, async () => {
    const answered = Promise.withResolvers<void>();
    const sink = await startWebhookSink(async (response, _request, index) => {
      if (index === 0) await answered.promise;
      if (index !== 1) response.writeHead(204).end(); // the second is never answered: its agent is killed
    });
    const agents = [await rig.register(), await rig.register()] as const;
    for (const { id } of agents) {
      const answer = await rig.broker.api('POST', `/api/v1/agents/${id}/labels`, { agent_id: id, label: 'site' });
      expect(answer.status).toBe(201);
    }
    const env = { BROKKR__AGENT__WEBHOOK_ALLOWED_NETWORKS: '127.0.0.0/8' };
    const first = await rig.start(agents[0], { env });
    await first.line(({ msg }) => msg === 'session opened');
    const body = {
      name: 'inside',
      url: sink.url,
      event_types: ['agent.registered'],
      target_labels: ['site'],
      timeout_seconds: 60,
    };
    const webhook = (await rig.broker.api<{ id: string; secret: string }>('POST', '/api/v1/webhooks', body)).body;
    const deliveries = async () => {
      const path = `/api/v1/webhooks/${webhook.id}/deliveries`;
      return (await rig.broker.api<{ id: string; status: string; attempts: number; acquired_by: string | null }[]>('GET', path))
        .body;
    };
    await rig.register(); // the event
    await until(
      async () => sink.open(),
      (open) => open === 1,
    );
    const beganMs = performance.now();
    const second = await rig.start(agents[1], { env });
    await second.line(({ msg }) => msg === 'session opened');
    await until(
      async () => performance.now() - beganMs,
      (ms) => ms > 18_000, // longer than the lease of 15 s
    );
    expect(sink.received).toHaveLength(1);
    expect(await deliveries()).toMatchObject([{ status: 'acquired', attempts: 1, acquired_by: agents[0].id }]);
    answered.resolve();
    await until(deliveries, ([delivery]) => delivery?.status === 'success');
    const [request] = sink.received as [Received];
    expect(request.headers['webhook-signature']).toBe(opensslSignature(webhook.secret, request));

    await rig.register();
    const [held] = await until(deliveries, ([delivery]) => delivery?.status === 'acquired' && sink.received.length === 2);
    await (held?.acquired_by === agents[0].id ? first : second).stop('SIGKILL');
    const [after] = await until(deliveries, ([delivery]) => delivery?.status === 'success', 60_000);
    expect(after).toMatchObject({ id: held?.id, attempts: 2 });
    expect(sink.received).toHaveLength(3);
    expect(sink.received[2]?.headers['webhook-id']).toBe(sink.received[1]?.headers['webhook-id']);
    for (const { log, text } of [first, second]) expect(JSON.stringify([log, text])).not.toMatch(/whsec_|\/hook/);
  });
});
