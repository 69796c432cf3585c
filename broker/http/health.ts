import { Code, ConnectError, type ConnectRouter } from '@connectrpc/connect';
import { aborted } from '#lib/signal.ts';
import { Health, HealthCheckResponse_ServingStatus as Status } from '#proto/grpc/health/v1/health_pb.js';

/** Whether the broker serves, told to clients of `grpc.health.v1.Health`. All services share one state. */
export interface HealthState {
  /** Changes the state and tells every watcher. */
  set(serving: boolean): void;
  /** Registers the service. */
  register(router: ConnectRouter): void;
}

/** Starts as not serving. `names` are the services that may be asked about, besides the empty name for the whole. */
export function createHealth(names: readonly string[]): HealthState {
  const known = new Set(['', ...names]);
  const watchers = new Set<() => void>();
  let status = Status.NOT_SERVING;
  const statusOf = (service: string) => (known.has(service) ? status : Status.SERVICE_UNKNOWN);
  return {
    set(serving) {
      status = serving ? Status.SERVING : Status.NOT_SERVING;
      for (const wake of watchers) wake();
    },
    register(router) {
      router.service(Health, {
        check({ service }) {
          if (!known.has(service)) throw new ConnectError(`no service ${service}`, Code.NotFound);
          return { status };
        },
        list: () => ({ statuses: Object.fromEntries([...known].map((name) => [name, { status }])) }),
        async *watch({ service }, { signal }) {
          let told: Status | undefined;
          while (!signal.aborted) {
            if (told !== statusOf(service)) {
              told = statusOf(service);
              yield { status: told };
              continue;
            }
            const { promise, resolve } = Promise.withResolvers<void>();
            watchers.add(resolve);
            await Promise.race([promise, aborted(signal)]).finally(() => watchers.delete(resolve));
          }
        },
      });
    },
  };
}
