import { type ContextKey, createContextKey } from '@connectrpc/connect';

/** Who calls, besides the key: for audit rows and logs. */
export interface Call {
  /** `X-Request-Id` of the caller when it is printable and at most 128 characters, else a new id. */
  readonly requestId: string;
  /** Address of the peer of the connection; what `X-Forwarded-For` says is in the headers and is not trusted here. */
  readonly ipAddress: string | undefined;
  /** `User-Agent`, at most 512 characters. */
  readonly userAgent: string | undefined;
}

/** What `authenticate` returned; undefined for public methods. */
export const principalKey: ContextKey<unknown> = createContextKey<unknown>(undefined, { description: 'principal' });

/** The call; set for every request that came through the port. */
export const callKey: ContextKey<Call | undefined> = createContextKey<Call | undefined>(undefined, { description: 'call' });

const MAX_REQUEST_ID = 128;
const MAX_USER_AGENT = 512;

/** Reads the call off a request's headers. */
export function callOf(
  headers: { readonly [name: string]: string | string[] | undefined },
  ipAddress: string | undefined,
  newId: () => string,
): Call {
  const given = headers['x-request-id'];
  const usable = typeof given === 'string' && given.length <= MAX_REQUEST_ID && /^[\x21-\x7e]+$/.test(given);
  const userAgent = headers['user-agent'];
  return {
    requestId: usable ? given : newId(),
    ipAddress,
    userAgent: typeof userAgent === 'string' ? userAgent.slice(0, MAX_USER_AGENT) : undefined,
  };
}
