import type { Interceptor } from '@connectrpc/connect';
import { createValidateInterceptor } from '@connectrpc/validate';
import { AgentSync } from '#proto/brokkr/v1/sync_pb.js';
import { principalKey } from '../http/context.ts';
import { assertAccess, isPublic } from './access.ts';
import type { Principal } from './principal.ts';
import { assertStorable } from './text.ts';

/**
 * Refuses what the access rules refuse, then what the field rules of the contract refuse and what cannot be stored.
 * Streams are checked at their gate, reports of agents where they are taken (`sync/frame-rules.ts`).
 */
export function createApiInterceptors(): Interceptor[] {
  const access: Interceptor = (next) => (request) => {
    if (!isPublic(request.method) && request.method.parent.typeName.startsWith('brokkr.')) {
      const principal = request.contextValues.get(principalKey) as Principal | undefined;
      if (principal) assertAccess(request.method, principal, request.stream ? undefined : request.message);
    }
    return next(request);
  };
  const storable: Interceptor = (next) => (request) => {
    if (!request.stream && request.method.parent.typeName !== AgentSync.typeName) assertStorable(request.method, request.message);
    return next(request);
  };
  return [access, createValidateInterceptor(), storable];
}
