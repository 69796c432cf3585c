import { expect, it } from 'vitest';
import { createAuthority } from '../certificate-authority.ts';
import { startGateway } from '../gateway-rig.ts';
import { useKube } from '../kube.ts';
import { listModules, type ModuleList } from '../module-list.ts';
import { testDatabase } from '../postgres.ts';
import { startBroker, temporaryDirectory } from '../processes.ts';
import { configMap, healthyAt, rigOn } from './rig.ts';

// Issue 6, traces: those who want none do not pay for them.

/** Of OpenTelemetry, what a process has loaded. */
function telemetryOf(list: ModuleList): readonly string[] {
  return [...list.packages()].filter((name) => name.startsWith('@opentelemetry/')).toSorted();
}

it('loads nothing of the SDK into broker, agent and gateway unless traces are switched on', async () => {
  const [kube, { url }, home] = await Promise.all([useKube(), testDatabase(), temporaryDirectory()]);
  const [ofBroker, ofAgent, ofGateway] = [await listModules(), await listModules(), await listModules()];
  const rig = rigOn(kube, await startBroker({ databaseUrl: url, env: ofBroker.env }), url);
  const agent = await rig.register();
  await rig.start(agent, { env: ofAgent.env });
  const stack = await rig.publish('untraced', configMap(await kube.namespace('untraced'), 'a'), agent.label);
  await rig.status(stack.id, healthyAt(stack.generation));
  await (await createAuthority('edge')).issue(home, { hosts: ['127.0.0.1'] });
  const gateway = await startGateway([home], [rig.broker.url], ofGateway.env);
  await expect.poll(async () => (await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200);
  for (const list of [ofBroker, ofAgent, ofGateway]) {
    expect(list.packages()).toContain('prom-client'); // the list is one
    expect(telemetryOf(list)).toEqual(['@opentelemetry/api']);
  }
});

it('loads it when they are', async () => {
  const list = await listModules();
  const home = await temporaryDirectory();
  await (await createAuthority('edge')).issue(home, { hosts: ['127.0.0.1'] });
  await startGateway([home], ['http://127.0.0.1:1'], { ...list.env, BROKKR__TELEMETRY__ENABLED: 'true' });
  expect(telemetryOf(list)).toContain('@opentelemetry/sdk-node');
});
