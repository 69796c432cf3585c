import { type CheckDeps, type CheckReport, runCheck, type Step } from '#lib/check.ts';
import { dialSocket, openConnection } from '#lib/check-network.ts';
import { BrokkrError, errorText } from '#lib/errors.ts';
import { ReachError, type ReachFailure } from '#lib/reach-failure.ts';
import { assertSchemaName, tryConnection } from './connect.ts';
import { type ConnectionTarget, endpointText, type PostgresEnvironment, parseConnectionUri } from './uri.ts';

/** Which database a broker would use, and how. */
export interface CheckedDatabase {
  /** Undefined: it would run one of its own. */
  readonly url: string | undefined;
  readonly schema: string;
}

/** Whether a broker could start on its database: name, port, TLS, login, version and schema. Changes nothing there. */
export async function checkDatabase(
  { url, schema }: CheckedDatabase,
  environment: PostgresEnvironment,
  deps: CheckDeps,
  signal: AbortSignal,
): Promise<CheckReport> {
  const read = () => {
    if (url === undefined) throw new Error('DATABASE_URL is not set: the broker runs a PostgreSQL of its own');
    assertSchemaName(schema);
    return parseConnectionUri(url, environment);
  };
  const work = async (step: Step) => {
    const target = await step('read DATABASE_URL', async () => configured(read), endpointText);
    await reachServer(target, step);
    const session = {
      schema,
      statementTimeoutMs: deps.timeoutMs,
      attemptTimeoutMs: deps.timeoutMs,
      applicationName: 'brokkr-check',
    };
    await step(
      `log in to database ${target.database} as ${target.user} with sslmode=${target.sslMode}`,
      (inner) => tryConnection(target, session, inner).catch(rejectWithClass),
      (server) => server,
    );
  };
  return await runCheck({ check: 'database', target: schema }, work, deps, signal);
}

async function reachServer(target: ConnectionTarget, step: Step): Promise<void> {
  const path = endpointText(target);
  const { socket } = target.host.startsWith('/')
    ? {
        socket: await step(
          `connect to ${path}`,
          (signal) => dialSocket({ path }, signal),
          () => '',
        ),
      }
    : await openConnection(target, step);
  socket.destroy();
}

function configured<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new ReachError('configuration', errorText(error));
  }
}

/** What a broker would say when it starts is what the check says. */
function rejectWithClass(error: unknown): never {
  if (!(error instanceof BrokkrError)) throw new ReachError('configuration', errorText(error), { cause: error }); // a file of TLS
  const { reason, next } = error.details ?? {};
  throw new ReachError(reason as ReachFailure, error.message, { next: String(next), cause: error });
}
