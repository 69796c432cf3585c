import { BrokkrError, errorText } from '#lib/errors.ts';
import { errorCode, nextStep, type ReachFailure, reachFailure } from '#lib/reach-failure.ts';
import { type ConnectionTarget, endpointText } from './uri.ts';

/** Why a connection could not be made, or a start is impossible. */
export type ConnectFailure = Exclude<ReachFailure, 'protocol' | 'forbidden' | 'status' | 'configuration' | 'unknown'>;

/** Classifies what `pg` threw while connecting. */
export function connectFailure(error: unknown): ConnectFailure {
  const code = errorCode(error);
  const text = errorText(error);
  if (code.startsWith('28')) return 'authentication';
  if (code === '3D000') return 'database_missing';
  // pg gives these no code
  if (/does not support SSL|establishing an SSL connection|disconnected before secure TLS/.test(text)) return 'tls';
  if (/timeout/i.test(text)) return 'timeout';
  if (/password must be a string|SASL|SCRAM|authentication/i.test(text)) return 'authentication';
  const failure = reachFailure(error);
  return failure !== undefined && isConnectFailure(failure) ? failure : 'unavailable';
}

function isConnectFailure(failure: ReachFailure): failure is ConnectFailure {
  return !['protocol', 'forbidden', 'status', 'configuration', 'unknown'].includes(failure);
}

/** The start-up error for an operator: names the endpoint and what to look at. `details.reason` is the class, `details.next` the next step. */
export function connectError(failure: ConnectFailure, target: ConnectionTarget, cause: unknown): BrokkrError {
  const endpoint = endpointText(target);
  const said = errorText(cause);
  const message = ((): string => {
    switch (failure) {
      case 'nxdomain':
        return `the host name of the database ${endpoint} does not exist (${said})`;
      case 'dns':
        return `the host name of the database ${endpoint} cannot be resolved (${said})`;
      case 'refused':
        return `no database listens at ${endpoint} (${said})`;
      case 'unreachable':
        return `there is no way to the database at ${endpoint} (${said})`;
      case 'reset':
        return `the database at ${endpoint} cut the connection (${said})`;
      case 'timeout':
        return `the database at ${endpoint} does not answer in time (${said}): is a firewall in between?`;
      case 'tls':
        return `TLS with the database at ${endpoint} failed under sslmode=${target.sslMode} (${said})`;
      case 'certificate':
        return `the certificate of the database at ${endpoint} is not accepted under sslmode=${target.sslMode} (${said})`;
      case 'authentication':
        return `the database at ${endpoint} refuses user ${target.user} (${said})`;
      case 'database_missing':
        return `the server at ${endpoint} has no database ${target.database} (${said})`;
      case 'schema':
        return `the schema in database ${target.database} at ${endpoint} cannot be used (${said})`;
      case 'version':
        return `the server at ${endpoint} cannot be used (${said})`;
      case 'unavailable':
        return `the database at ${endpoint} is not available (${said})`;
    }
  })();
  const next = nextStep(failure, cause);
  return new BrokkrError('database_unavailable', message, { details: { reason: failure, endpoint, next }, cause });
}

const CONSTRAINTS = {
  '23505': ['unique_violation', 'already exists'],
  '23503': ['foreign_key_violation', 'refers to something that does not exist, or is still referred to'],
  '23514': ['check_violation', 'is not acceptable'],
  '23502': ['not_null_violation', 'is missing'],
} as const;

/**
 * Translates what the driver or the ORM threw while working: constraint violations become their own names with
 * `details.constraint`, a lost or refused connection `database_unavailable`, an exceeded statement timeout
 * `deadline_exceeded`, a conflict that outlived its retries `unavailable`. Anything else is returned as it is: a bug.
 */
export function databaseError(error: unknown): unknown {
  if (error instanceof BrokkrError) return error;
  const code = errorCode(error);
  const violation = CONSTRAINTS[code as keyof typeof CONSTRAINTS];
  if (violation) {
    const { constraint, column, table } = error as { constraint?: string; column?: string; table?: string };
    const name = constraint ?? column ?? '';
    return new BrokkrError(violation[0], `${table ?? 'the row'}: ${name || 'a value'} ${violation[1]}`, {
      details: { constraint: name },
      cause: error,
    });
  }
  if (code === '57014') return new BrokkrError('deadline_exceeded', 'the database statement took too long', { cause: error });
  if (isConflict(error))
    return new BrokkrError('unavailable', 'the change met others on the same rows, try again', { cause: error });
  if (isConnectionLoss(error)) return new BrokkrError('database_unavailable', 'the database is not available', { cause: error });
  return error;
}

/** True for a serialization failure or a deadlock: the transaction may simply be run again. */
export function isConflict(error: unknown): boolean {
  const code = errorCode(error);
  return code === '40001' || code === '40P01';
}

/** True when the error says that there is no usable connection to the server, whatever the statement was. */
function isConnectionLoss(error: unknown): boolean {
  const code = errorCode(error);
  if (reachFailure(error) !== undefined) return true;
  // class 08: connection exception; 57P01..57P03: shutting down, crashed, starting; 53300: too many connections;
  // 28: authentication; 3D000: the database is gone
  if (/^(08...|57P0[123]|53300|28...|3D000)$/.test(code)) return true;
  // pg and its pool give these no code
  return /^(Connection terminated|Client has encountered a connection error|timeout exceeded when trying to connect|no answer from the database|The server does not support SSL|Client was closed)/.test(
    errorText(error),
  );
}
