import { beforeAll, describe, expect, it } from 'vitest';
import { command } from '../../hack/interop/command.ts';
import { type PythonClient, preparePythonClient } from '../../hack/interop/python.ts';
import { clientEnvironment, configMap, type Endpoints, startEndpoints, toolOptions } from './endpoints.ts';

const signal = new AbortController().signal;
let client: PythonClient;
let endpoints: Endpoints;
beforeAll(async () => {
  client = await preparePythonClient(toolOptions, signal);
  endpoints = await startEndpoints(signal);
});

describe.each(['plain', 'tls'] as const)('a Python client from generated stubs on the %s port', (which) => {
  it('creates a stack, publishes, opens a session and reads the target state', async () => {
    const name = `python-${which}`;
    const env = clientEnvironment(endpoints, which, name);
    const output = await command(client.python, [client.main], { env }, signal);
    expect(JSON.parse(output)).toMatchObject({
      agent_name: name,
      mode: 'SYNC_MODE_SNAPSHOT',
      stacks: [{ name, generation: 1, kinds: ['ConfigMap'], yaml: configMap(name) }],
      without_key: 'UNAUTHENTICATED',
    });
  });
});
