import { CheckPakResponseSchema } from '#proto/brokkr/v1/keys_pb.js';
import type { Endpoint } from './endpoint.ts';
import { createDispatcher } from './http.ts';
import { callUnary } from './unary.ts';

/** One authenticated call over a new connection. Rejects with the broker's refusal, or with the socket's error. */
export async function checkBroker(endpoint: Endpoint, signal: AbortSignal): Promise<void> {
  const dispatcher = createDispatcher(endpoint, { connections: 1 });
  try {
    await callUnary(dispatcher, endpoint, 'brokkr.v1.KeyService/CheckPak', '{}', CheckPakResponseSchema, signal);
  } finally {
    await dispatcher.destroy();
  }
}
