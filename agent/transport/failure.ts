import { fromBinary } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { BrokkrError, ERRORS, type ErrorDetails, type ErrorName, type StatusCode } from '#lib/errors.ts';
import { ErrorSchema } from '#proto/brokkr/v1/errors_pb.js';

const ERROR_TYPE = 'brokkr.v1.Error';

/** What a failure looks like when the broker gave no detail (a proxy in between, another server). */
const BY_STATUS: Readonly<Record<StatusCode, ErrorName>> = {
  1: 'canceled',
  3: 'invalid_request',
  4: 'deadline_exceeded',
  5: 'not_found',
  6: 'unique_violation',
  7: 'forbidden',
  8: 'too_many_requests',
  9: 'precondition_failed',
  10: 'unavailable',
  12: 'unimplemented',
  13: 'internal_error',
  14: 'unavailable',
  16: 'unauthorized',
};

/** An answer that refuses, as both transports see it. */
export interface Refusal {
  /** gRPC status code. */
  readonly status: number;
  readonly message: string;
  /** Our Error message in binary, when there was one. */
  readonly detail: Uint8Array | undefined;
  /** Seconds, as in the HTTP header. */
  readonly retryAfter: string | undefined;
}

/** The failure the broker meant. `details.retry_after_ms` is set when it named a time. Names not known here become those of their status. */
export function refusalError({ status, message, detail, retryAfter }: Refusal): BrokkrError {
  const fallback = BY_STATUS[status as StatusCode] ?? 'unavailable';
  const retry = /^\d+$/.test(retryAfter ?? '') ? { retry_after_ms: Number(retryAfter) * 1000 } : {};
  const decoded = detail && decode(detail);
  if (!decoded) return new BrokkrError(fallback, message || `status ${status}`, { details: retry });
  const code = decoded.code in ERRORS ? (decoded.code as ErrorName) : fallback;
  const details = (decoded.details ?? {}) as ErrorDetails;
  return new BrokkrError(code, decoded.message || message, { details: { ...retry, ...details } });
}

/** The wait the broker asked for, in milliseconds. */
export function retryAfterMs(error: unknown): number | undefined {
  const value = error instanceof BrokkrError ? error.details?.retry_after_ms : undefined;
  return typeof value === 'number' && value >= 0 ? value : undefined;
}

/** Our Error in the details of a google.rpc.Status (`grpc-status-details-bin`): field 3 holds Any{type_url = 1, value = 2}. */
export function detailOfStatus(status: Uint8Array): Uint8Array | undefined {
  try {
    for (const any of fields(status, 3)) {
      const type = Buffer.from(fields(any, 1)[0] ?? []).toString();
      if (type.endsWith(`/${ERROR_TYPE}`) || type === ERROR_TYPE) return fields(any, 2)[0];
    }
  } catch {
    return undefined; // written by something else than our broker
  }
  return undefined;
}

function decode(detail: Uint8Array) {
  try {
    return fromBinary(ErrorSchema, detail);
  } catch {
    return undefined;
  }
}

/** The values of a length-delimited field. */
function fields(message: Uint8Array, wanted: number): Uint8Array[] {
  const reader = new BinaryReader(message);
  const found: Uint8Array[] = [];
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (number === wanted && type === WireType.LengthDelimited) found.push(reader.bytes());
    else reader.skip(type, number);
  }
  return found;
}
