import { type Logger as PinoLogger, pino } from 'pino';
import { activeTraceFields } from './tracing.ts';

/**
 * JSON lines on stdout: a constant message, variables in fields. Levels: error = a person must act. Lines of a sampled trace
 * carry `trace_id` and `span_id`.
 */
export type Logger = PinoLogger;

/** Settings of the log of a process. */
export interface LogConfig {
  readonly level: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace';
}

const REDACTED_PATHS = ['pak', '*.pak', 'authorization', '*.authorization', 'headers.authorization', 'password', '*.password'];

/** The logger of a process; `name` is the component. Keys and passwords passed as fields are censored. */
export function createLog(name: string, config: LogConfig): Logger {
  return pino({
    name,
    level: config.level,
    base: { component: name },
    mixin: activeTraceFields,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: { paths: REDACTED_PATHS, censor: '[redacted]' },
  });
}
