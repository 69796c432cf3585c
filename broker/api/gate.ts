import { principalKey } from '../http/context.ts';
import type { RequestGate } from '../http/gate.ts';
import { assertAccess, isPublic } from './access.ts';
import type { Principal } from './principal.ts';

/** Refuses by role before a body is read. What the request names is checked by the interceptor, once there is one. */
export function createRequestGate(): RequestGate {
  return (context) => {
    if (!context.method.parent.typeName.startsWith('brokkr.') || isPublic(context.method)) return;
    assertAccess(context.method, context.values.get(principalKey) as Principal, undefined);
  };
}
