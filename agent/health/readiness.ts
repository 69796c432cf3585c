/**
 * When an applied object is ready: the rules of kstatus (sigs.k8s.io/cli-utils, pkg/kstatus) with what they leave out.
 * Pure; reads only metadata, spec and status.
 */

/**
 * `progressing` is on its way; `degraded` works less than it should and `suspended` was told to wait, so that neither is late; `failing`
 * will not become ready without help; `unknown` cannot be told.
 */
export type ReadyState = 'ready' | 'progressing' | 'degraded' | 'suspended' | 'failing' | 'unknown';

/** State of one object. `reason` is a CamelCase word, `message` at most 256 characters. */
export interface Readiness {
  readonly state: ReadyState;
  readonly reason: string;
  readonly message: string;
  /** Pods the object runs, as its status counts them. */
  readonly podsReady: number;
  readonly podsTotal: number;
  /** Since when it is not ready, in milliseconds by the agent's clock. */
  readonly sinceMs?: number;
  /** `metadata.uid` of what was looked at. */
  readonly uid?: string;
  /** `metadata.generation` of what was looked at; 0 for kinds without one. */
  readonly generation?: number;
}

/** A live object, as far as it is looked at. */
export interface LiveObject {
  readonly metadata: { readonly generation?: number; readonly deletionTimestamp?: string };
  readonly [field: string]: unknown;
}

interface Condition {
  readonly type?: string;
  readonly status?: string;
  readonly reason?: string;
  readonly message?: string;
}

type Fields = Readonly<Record<string, unknown>>;

interface Parts {
  readonly spec: Fields;
  readonly status: Fields;
  readonly conditions: readonly Condition[];
}

type Rule = (parts: Parts) => Readiness;

const MAX_MESSAGE = 256;

const RULES: Readonly<Record<string, Rule>> = {
  'apps/Deployment': deployment,
  'apps/StatefulSet': statefulSet,
  'apps/DaemonSet': daemonSet,
  'apps/ReplicaSet': replicaSet,
  '/ReplicationController': replicaSet,
  'batch/Job': job,
  '/Pod': pod,
  '/PersistentVolumeClaim': ({ status }) =>
    status.phase === 'Bound' ? ready('Bound') : phase(status, { Lost: 'failing' }, 'the claim is not bound'),
  '/Service': service,
  '/Namespace': ({ status }) => (status.phase === 'Active' ? ready('Active') : progressing(text(status.phase) || 'Pending')),
  'apiextensions.k8s.io/CustomResourceDefinition': customResourceDefinition,
  'apiregistration.k8s.io/APIService': ({ conditions }) => byCondition(conditions, 'Available'),
  'autoscaling/HorizontalPodAutoscaler': autoscaler,
};

/** API groups served by Kubernetes itself; kinds of other groups are judged by their conditions. */
const BUILT_IN = /^(|apps|batch|autoscaling|policy|extensions|[a-z0-9.-]+\.k8s\.io)$/;

/** Whether objects of a kind have a state worth watching; all others are ready once they are applied. */
export function hasReadiness(group: string, kind: string): boolean {
  return `${group}/${kind}` in RULES || !BUILT_IN.test(group);
}

/** What goes before every rule, ours and those of a stack: the object is leaving, or its status is of an older generation. */
export function unsettled(object: LiveObject): Readiness | undefined {
  if (object.metadata.deletionTimestamp !== undefined) return progressing('Terminating', 'the object is being deleted');
  const observed = fields(object.status).observedGeneration;
  const { generation } = object.metadata;
  if (typeof observed !== 'number' || generation === undefined || observed >= generation) return undefined;
  return progressing('NotObserved', 'the controller has not seen the latest change');
}

/** Whether a live object is ready. */
export function readiness(group: string, kind: string, object: LiveObject): Readiness {
  const early = unsettled(object);
  if (early) return early;
  const status = fields(object.status);
  const conditions = Array.isArray(status.conditions) ? (status.conditions as Condition[]) : [];
  return (RULES[`${group}/${kind}`] ?? generic)({ spec: fields(object.spec), status, conditions });
}

function deployment({ spec, status, conditions }: Parts): Readiness {
  const wanted = number(spec.replicas, 1);
  const pods = { podsReady: number(status.readyReplicas), podsTotal: wanted };
  const stalled = conditions.find(({ type, reason }) => type === 'Progressing' && reason === 'ProgressDeadlineExceeded');
  if (stalled) return { ...failing('ProgressDeadlineExceeded', stalled.message), ...pods };
  const failure = conditions.find(({ type, status: value }) => type === 'ReplicaFailure' && value === 'True');
  if (failure) return { ...failing(failure.reason ?? 'ReplicaFailure', failure.message), ...pods };
  if (spec.paused === true) return { ...suspended('Paused', 'the rollout is paused'), ...pods };
  const updated = number(status.updatedReplicas);
  if (updated < wanted) return { ...progressing('LessUpdated', `${updated} of ${wanted} replicas are updated`), ...pods };
  if (number(status.replicas) > updated) {
    return { ...progressing('ExtraPods', `${number(status.replicas) - updated} replicas are still to go`), ...pods };
  }
  const available = number(status.availableReplicas);
  if (available < wanted) return { ...progressing('LessAvailable', `${available} of ${wanted} replicas are available`), ...pods };
  if (!('observedGeneration' in status)) return { ...progressing('NotObserved', 'the controller has not seen it'), ...pods };
  return { ...ready('Available'), ...pods };
}

function statefulSet({ spec, status }: Parts): Readiness {
  const wanted = number(spec.replicas, 1);
  const readyReplicas = number(status.readyReplicas);
  const pods = { podsReady: readyReplicas, podsTotal: wanted };
  if (!('observedGeneration' in status)) return { ...progressing('NotObserved', 'the controller has not seen it'), ...pods };
  if (readyReplicas < wanted) return { ...progressing('LessReady', `${readyReplicas} of ${wanted} replicas are ready`), ...pods };
  const strategy = fields(spec.updateStrategy);
  if (strategy.type === 'OnDelete') return { ...ready('Ready'), ...pods };
  const partition = number(fields(strategy.rollingUpdate).partition);
  const updated = number(status.updatedReplicas);
  const update = Math.max(0, wanted - partition);
  if (updated < update) return { ...progressing('LessUpdated', `${updated} of ${update} replicas are updated`), ...pods };
  if (partition === 0 && status.currentRevision !== status.updateRevision) {
    return { ...progressing('RolloutInProgress', 'the new revision is not current yet'), ...pods };
  }
  return { ...ready('Ready'), ...pods };
}

function daemonSet({ spec, status }: Parts): Readiness {
  const wanted = number(status.desiredNumberScheduled);
  const pods = { podsReady: number(status.numberReady), podsTotal: wanted };
  if (!('observedGeneration' in status)) return { ...progressing('NotObserved', 'the controller has not seen it'), ...pods };
  const updated = number(status.updatedNumberScheduled);
  const onDelete = fields(spec.updateStrategy).type === 'OnDelete';
  if (!onDelete && updated < wanted)
    return { ...progressing('LessUpdated', `${updated} of ${wanted} pods are updated`), ...pods };
  const available = number(status.numberAvailable);
  if (available < wanted) return { ...progressing('LessAvailable', `${available} of ${wanted} pods are available`), ...pods };
  if (pods.podsReady < wanted) return { ...progressing('LessReady', `${pods.podsReady} of ${wanted} pods are ready`), ...pods };
  return { ...ready('Ready'), ...pods };
}

function replicaSet({ spec, status, conditions }: Parts): Readiness {
  const wanted = number(spec.replicas, 1);
  const pods = { podsReady: number(status.readyReplicas), podsTotal: wanted };
  const failure = conditions.find(({ type, status: value }) => type === 'ReplicaFailure' && value === 'True');
  if (failure) return { ...failing(failure.reason ?? 'ReplicaFailure', failure.message), ...pods };
  const available = number(status.availableReplicas);
  if (available < wanted) return { ...progressing('LessAvailable', `${available} of ${wanted} replicas are available`), ...pods };
  return { ...ready('Available'), ...pods };
}

function job({ spec, status, conditions }: Parts): Readiness {
  const pods = { podsReady: number(status.ready), podsTotal: number(status.active) };
  for (const condition of conditions) {
    if (condition.status !== 'True') continue;
    if (condition.type === 'Failed') return failing(condition.reason ?? 'Failed', condition.message);
    if (condition.type === 'Complete') return ready('Complete');
    if (condition.type === 'Suspended') return suspended('Suspended', 'the job is suspended');
  }
  if (spec.suspend === true) return suspended('Suspended', 'the job is suspended');
  if (status.startTime === undefined) return { ...progressing('NotStarted', 'the job has not started'), ...pods };
  return { ...progressing('Running', `${number(status.succeeded)} of ${number(spec.completions, 1)} completions`), ...pods };
}

/** Waiting reasons that do not go away by themselves. */
const STUCK =
  /^(CrashLoopBackOff|ImagePullBackOff|ErrImagePull|InvalidImageName|CreateContainerConfigError|CreateContainerError)$/;

function pod({ status, conditions }: Parts): Readiness {
  const isReady = conditions.some(({ type, status: value }) => type === 'Ready' && value === 'True');
  const pods = { podsReady: isReady ? 1 : 0, podsTotal: 1 };
  if (status.phase === 'Succeeded') return ready('Succeeded');
  if (status.phase === 'Failed') return { ...failing(text(status.reason) || 'Failed', text(status.message)), ...pods };
  if (isReady) return { ...ready('Ready'), ...pods };
  const containers = [status.initContainerStatuses, status.containerStatuses].flatMap((list) =>
    Array.isArray(list) ? list : [],
  );
  for (const container of containers) {
    const waiting = fields(fields(container).state).waiting;
    const reason = text(fields(waiting).reason);
    if (STUCK.test(reason)) return { ...failing(reason, text(fields(waiting).message)), ...pods };
  }
  const unscheduled = conditions.find(({ type, status: value }) => type === 'PodScheduled' && value === 'False');
  if (unscheduled) return { ...progressing(unscheduled.reason ?? 'Unschedulable', unscheduled.message), ...pods };
  return { ...progressing(text(status.phase) || 'Pending', 'the pod is not ready'), ...pods };
}

function service({ spec, status }: Parts): Readiness {
  if (spec.type !== 'LoadBalancer') return ready('Current');
  const { ingress } = fields(status.loadBalancer);
  return Array.isArray(ingress) && ingress.length > 0
    ? ready('AddressAssigned')
    : progressing('NoAddress', 'the load balancer has no address yet');
}

function customResourceDefinition({ conditions }: Parts): Readiness {
  const refused = conditions.find(({ type, status }) => type === 'NamesAccepted' && status === 'False');
  if (refused) return failing(refused.reason ?? 'NamesNotAccepted', refused.message);
  return byCondition(conditions, 'Established');
}

function autoscaler({ conditions }: Parts): Readiness {
  for (const name of ['AbleToScale', 'ScalingActive']) {
    const condition = conditions.find(({ type }) => type === name);
    if (condition?.status === 'False' && condition.reason !== 'ScalingDisabled') {
      return { ...progressing(condition.reason ?? name, condition.message), state: 'degraded' };
    }
  }
  return ready('Current');
}

/** Conditions by custom: Stalled, Reconciling (kstatus), Ready, Available. An object without any of them is ready as it is. */
function generic({ conditions }: Parts): Readiness {
  const find = (name: string) => conditions.find(({ type }) => type === name);
  const stalled = find('Stalled');
  if (stalled?.status === 'True') return failing(stalled.reason ?? 'Stalled', stalled.message);
  const reconciling = find('Reconciling');
  if (reconciling?.status === 'True') return progressing(reconciling.reason ?? 'Reconciling', reconciling.message);
  const main = find('Ready') ?? find('Available');
  return main ? judgeCondition(main) : ready('Current');
}

function byCondition(conditions: readonly Condition[], name: string): Readiness {
  const condition = conditions.find(({ type }) => type === name);
  return condition ? judgeCondition(condition) : progressing(`Not${name}`, `condition ${name} is not set yet`);
}

function judgeCondition({ type = '', status, reason, message }: Condition): Readiness {
  if (status === 'True') return ready(reason || type);
  if (status === 'Unknown') return { ...progressing(reason || `${type}Unknown`, message), state: 'unknown' };
  return progressing(reason || `Not${type}`, message);
}

function phase(status: Fields, states: Readonly<Record<string, ReadyState>>, message: string): Readiness {
  const name = text(status.phase) || 'Pending';
  return { ...progressing(name, message), state: states[name] ?? 'progressing' };
}

function ready(reason: string): Readiness {
  return { state: 'ready', reason, message: '', podsReady: 0, podsTotal: 0 };
}

function progressing(reason: string, message = ''): Readiness {
  return { state: 'progressing', reason, message: message.slice(0, MAX_MESSAGE), podsReady: 0, podsTotal: 0 };
}

function failing(reason: string, message = ''): Readiness {
  return { ...progressing(reason, message), state: 'failing' };
}

function suspended(reason: string, message: string): Readiness {
  return { ...progressing(reason, message), state: 'suspended' };
}

function fields(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

function number(value: unknown, otherwise = 0): number {
  return typeof value === 'number' ? value : otherwise;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
