import { type DescMethod, getOption, hasOption } from '@bufbuild/protobuf';
import { type ContextKey, type ContextValues, createContextKey, type HandlerContext } from '@connectrpc/connect';
import { Access, access } from '#proto/brokkr/v1/options_pb.js';
import { callKey, principalKey } from './context.ts';

/**
 * Finds out who calls. `headers` has `authorization`; `remoteAddress` is the peer's. Throws `unauthorized`. Not called
 * for public methods.
 */
export type Authenticate = (headers: Headers, remoteAddress: string) => Promise<unknown>;

/** Admits calls before their body is read. */
export interface Gate {
  /** Authenticates and sets `principalKey` in `values`, once a call. */
  admit(method: DescMethod, headers: Headers, values: ContextValues): Promise<void>;
}

const admittedKey: ContextKey<boolean> = createContextKey(false, { description: 'admitted' });

/** A gate that lets everybody call public methods and asks `authenticate` about all others. */
export function createGate(authenticate: Authenticate): Gate {
  return {
    async admit(method, headers, values) {
      if (values.get(admittedKey)) return; // REST asks before it reads the body and Connect asks again
      if (!isPublic(method)) values.set(principalKey, await authenticate(headers, values.get(callKey)?.ipAddress ?? ''));
      values.set(admittedKey, true);
    },
  };
}

/** What a request gate of ours does beyond admission, before the body is read; for example the access rules. */
export type RequestGate = (context: HandlerContext) => void | Promise<void>;

/** True for methods that need no key: those with `ACCESS_PUBLIC`, and gRPC's own (reflection, health). */
function isPublic(method: DescMethod): boolean {
  if (method.parent.typeName.startsWith('grpc.')) return true;
  return hasOption(method, access) && getOption(method, access).allow.includes(Access.PUBLIC);
}
