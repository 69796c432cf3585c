import type { KubeObject } from '../kube/objects.ts';

/** Why pods of a workload are not ready. */
export interface PodTrouble {
  /** `ImagePullBackOff`, `OOMKilled`, `Unschedulable`, …: that of most pods. */
  readonly reason: string;
  /** With the number of pods and the words of one of them, at most 256 characters. */
  readonly message: string;
}

const MAX_MESSAGE = 256;

/** Reasons that every pod has at the beginning; told only when there is no better one. */
const EARLY: ReadonlySet<string> = new Set(['ContainerCreating', 'PodInitializing', 'Pending']);

/** The reason most pods have for not being ready; undefined when none of them has one. */
export function topReason(pods: readonly KubeObject[]): PodTrouble | undefined {
  const counts = new Map<string, { count: number; message: string }>();
  for (const pod of pods) {
    const trouble = troubleOf(pod);
    if (!trouble) continue;
    const seen = counts.get(trouble.reason);
    if (seen) seen.count++;
    else counts.set(trouble.reason, { count: 1, message: trouble.message });
  }
  const rank = (reason: string, count: number) => (EARLY.has(reason) ? 0 : count);
  const [top] = [...counts].sort(([a, { count: m }], [b, { count: n }]) => rank(b, n) - rank(a, m));
  if (!top) return undefined;
  const [reason, { count, message }] = top;
  const text = `${reason} in ${count} of ${pods.length} pods${message === '' ? '' : `: ${message}`}`;
  return { reason, message: text.slice(0, MAX_MESSAGE) };
}

/** Whether the status of a workload says that it has pods, or had some that failed; without any there is nobody to ask. */
export function hasPods({ status }: KubeObject): boolean {
  const counts = (status ?? {}) as Readonly<Record<string, unknown>>;
  return ['replicas', 'currentNumberScheduled', 'active', 'failed'].some((name) => Number(counts[name] ?? 0) > 0);
}

/** Selector of the pods of a workload, as the API takes it in a query; undefined when it has none. */
export function podSelector(workload: KubeObject): string | undefined {
  const selector = (workload.spec as { readonly selector?: Selector | Labels } | undefined)?.selector;
  if (!selector) return undefined;
  const { matchLabels, matchExpressions } = selector as Selector;
  if (!matchLabels && !matchExpressions) return labels(selector as Labels); // a ReplicationController's
  const parts = [labels(matchLabels ?? {})];
  for (const { key, operator, values = [] } of matchExpressions ?? []) {
    if (operator === 'Exists') parts.push(key);
    else if (operator === 'DoesNotExist') parts.push(`!${key}`);
    else parts.push(`${key} ${operator.toLowerCase()} (${values.join(',')})`);
  }
  return parts.filter((part) => part !== '').join(',');
}

type Labels = Readonly<Record<string, string>>;
interface Selector {
  readonly matchLabels?: Labels;
  readonly matchExpressions?: readonly { readonly key: string; readonly operator: string; readonly values?: readonly string[] }[];
}

function labels(wanted: Labels): string {
  return Object.entries(wanted)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

interface ContainerState {
  readonly waiting?: { readonly reason?: string; readonly message?: string };
  readonly terminated?: { readonly reason?: string; readonly message?: string; readonly exitCode?: number };
}

interface PodStatus {
  readonly phase?: string;
  readonly reason?: string;
  readonly message?: string;
  readonly conditions?: readonly {
    readonly type: string;
    readonly status: string;
    readonly reason?: string;
    readonly message?: string;
  }[];
  readonly initContainerStatuses?: readonly ContainerStatus[];
  readonly containerStatuses?: readonly ContainerStatus[];
}

interface ContainerStatus {
  readonly state?: ContainerState;
  readonly lastState?: ContainerState;
}

function troubleOf(pod: KubeObject): { readonly reason: string; readonly message: string } | undefined {
  const { phase, reason, message = '', conditions = [], ...containers } = (pod.status ?? {}) as PodStatus;
  if (phase === 'Failed') return { reason: reason ?? 'Failed', message };
  if (conditions.some(({ type, status }) => type === 'Ready' && status === 'True') || phase === 'Succeeded') return undefined;
  for (const { state = {}, lastState = {} } of [
    ...(containers.initContainerStatuses ?? []),
    ...(containers.containerStatuses ?? []),
  ]) {
    if (state.terminated?.reason === 'OOMKilled' || lastState.terminated?.reason === 'OOMKilled') {
      return { reason: 'OOMKilled', message: 'a container had more memory than its limit' };
    }
    const { waiting, terminated } = state;
    if (waiting?.reason) return { reason: waiting.reason, message: waiting.message ?? '' };
    if (terminated && terminated.exitCode !== 0)
      return { reason: terminated.reason ?? 'Error', message: terminated.message ?? '' };
  }
  const unmet = conditions.find(({ type, status }) => type === 'PodScheduled' && status === 'False');
  if (unmet) return { reason: unmet.reason ?? 'Unschedulable', message: unmet.message ?? '' };
  return phase === 'Pending' ? { reason: 'Pending', message } : undefined;
}
