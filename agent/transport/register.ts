import { create, toJsonString } from '@bufbuild/protobuf';
import type { Clock } from '#lib/clock.ts';
import { BrokkrError } from '#lib/errors.ts';
import { RegisterAgentRequestSchema, RegisterAgentResponseSchema } from '#proto/brokkr/v1/generators_pb.js';
import type { Endpoint } from './endpoint.ts';
import { createDispatcher } from './http.ts';
import { callUnary } from './unary.ts';

const CALL_MS = 15_000;

/** Registers the agent with a generator; being registered already is as good. Rejects with the broker's reason otherwise. */
export async function registerWith(generatorId: string, endpoint: Endpoint, clock: Clock, signal: AbortSignal): Promise<void> {
  const dispatcher = createDispatcher(endpoint, { connections: 1 });
  try {
    using deadline = clock.deadline(CALL_MS, signal);
    const text = toJsonString(RegisterAgentRequestSchema, create(RegisterAgentRequestSchema, { id: generatorId }));
    const method = 'brokkr.v1.GeneratorService/RegisterAgent';
    await callUnary(dispatcher, endpoint, method, text, RegisterAgentResponseSchema, deadline.signal);
  } catch (error) {
    if (!(error instanceof BrokkrError && error.code === 'already_registered')) throw error;
  } finally {
    await dispatcher.destroy();
  }
}
