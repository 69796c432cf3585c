import type { Interceptor } from '@connectrpc/connect';
import { createValidateInterceptor } from '@connectrpc/validate';
import { principalKey } from '../http/context.ts';
import { assertAccess, isPublic } from './access.ts';
import type { Principal } from './principal.ts';

/** Refuses what the access rules refuse, then what the field rules of the contract refuse. Streams are checked at their gate. */
export function createApiInterceptors(): Interceptor[] {
  const access: Interceptor = (next) => (request) => {
    if (!isPublic(request.method) && request.method.parent.typeName.startsWith('brokkr.')) {
      const principal = request.contextValues.get(principalKey) as Principal | undefined;
      if (principal) assertAccess(request.method, principal, request.stream ? undefined : request.message);
    }
    return next(request);
  };
  return [access, createValidateInterceptor()];
}
