import { beforeAll, describe, expect, it } from 'vitest';
import { command } from '../../hack/interop/command.ts';
import { buildGoClient } from '../../hack/interop/go.ts';
import { clientEnvironment, configMap, type Endpoints, startEndpoints, toolOptions } from './endpoints.ts';

const signal = new AbortController().signal;
let client: string;
let endpoints: Endpoints;
beforeAll(async () => {
  client = await buildGoClient(toolOptions, signal);
  endpoints = await startEndpoints(signal);
});

describe.each(['plain', 'tls'] as const)('a Go client from generated stubs on the %s port', (which) => {
  it('creates a stack, publishes, opens a session and reads the target state', async () => {
    const name = `go-${which}`;
    const env = clientEnvironment(endpoints, which, name);
    const output = await command(client, [], { env }, signal);
    expect(JSON.parse(output)).toMatchObject({
      agent_name: name,
      mode: 'SYNC_MODE_SNAPSHOT',
      stacks: [{ name, generation: 1, kinds: ['ConfigMap'], yaml: configMap(name) }],
      without_key: 'Unauthenticated',
    });
  });
});
