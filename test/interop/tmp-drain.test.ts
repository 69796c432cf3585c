import { it, expect } from 'vitest';
import { createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { create } from '@bufbuild/protobuf';
import { connectAgent, hello } from '../agent-client.ts';
import { startInProcessBroker } from '../in-process-broker.ts';
import { AgentMessageSchema, AgentSync } from '#proto/brokkr/v1/sync_pb.js';
it.each(['none', 'scripted', 'connect', 'connect-end', 'grpc', 'grpcweb'])('%s', async (kind) => {
  const broker = await startInProcessBroker();
  const { pak } = await broker.agent('a', ['a']);
  if (kind === 'scripted') { using a = connectAgent(broker.url, pak); a.send(hello()); await a.take('snapshotEnd'); }
  else if (kind !== 'none') {
    const make = kind.startsWith('connect') ? createConnectTransport : kind === 'grpc' ? createGrpcTransport : createGrpcWebTransport;
    const client = createClient(AgentSync, make({ baseUrl: broker.url, httpVersion: '2' }));
    const over = Promise.withResolvers<void>();
    async function* sent() { yield create(AgentMessageSchema, { seq: 1n, body: hello() }); await over.promise; }
    for await (const f of client.session(sent(), { headers: { authorization: pak } })) if (f.body.case === 'snapshotEnd') { if (kind === 'connect-end') over.resolve(); else break; }
    over.resolve();
  }
  const t = performance.now();
  await broker.stop();
  console.log(kind, 'stop took', Math.round(performance.now() - t));
});
