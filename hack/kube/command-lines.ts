import { join } from 'node:path';
import type { State } from './state.ts';

/** `blocking`: a request is in the log once it is answered. `batch`: cheaper, seconds later. */
export type AuditMode = 'blocking' | 'batch' | 'off';

/** Not synced to disk: a killed process loses nothing, a power cut may. */
export function etcdArgs({ dir, ports }: State): string[] {
  const client = `http://127.0.0.1:${ports.etcd}`;
  const peer = `http://127.0.0.1:${ports.etcdPeer}`;
  return [
    ...['--data-dir', join(dir, 'etcd'), '--unsafe-no-fsync', '--log-level', 'warn'],
    ...['--listen-client-urls', client, '--advertise-client-urls', client],
    ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', `default=${peer}`],
  ];
}

/** RBAC on, certificates of its own making, on the loopback interface only. */
export function apiServerArgs({ dir, ports }: State, audit: AuditMode): string[] {
  return [
    ...['--etcd-servers', `http://127.0.0.1:${ports.etcd}`, '--bind-address', '127.0.0.1', '--advertise-address', '127.0.0.1'],
    ...['--secure-port', String(ports.apiServer), '--cert-dir', join(dir, 'certs'), '--endpoint-reconciler-type', 'none'],
    ...['--service-cluster-ip-range', '10.96.0.0/16', '--allow-privileged', '--authorization-mode', 'Node,RBAC'],
    ...['--token-auth-file', join(dir, 'tokens.csv'), '--service-account-issuer', 'https://kubernetes.default.svc'],
    ...['--service-account-key-file', join(dir, 'sa.pub'), '--service-account-signing-key-file', join(dir, 'sa.key')],
    ...['--shutdown-delay-duration', '0s'],
    ...(audit === 'off' ? [] : ['--audit-policy-file', join(dir, 'audit.yaml'), '--audit-log-path', join(dir, 'audit.log')]),
    ...(audit === 'off' ? [] : ['--audit-log-mode', audit, '--audit-log-maxsize', '500', '--audit-log-maxbackup', '1']),
  ];
}

/** All controllers, without leader election and practically without client rate limits. */
export function controllerManagerArgs({ dir, ports }: State): string[] {
  return [
    ...['--kubeconfig', join(dir, 'kubeconfigs', 'kcm'), '--bind-address', '127.0.0.1'],
    ...['--secure-port', String(ports.controllerManager), '--cert-dir', join(dir, 'certs', 'kcm'), '--leader-elect=false'],
    ...['--use-service-account-credentials', '--service-account-private-key-file', join(dir, 'sa.key')],
    ...['--root-ca-file', join(dir, 'certs', 'apiserver.crt'), '--controllers', '*'],
    ...['--kube-api-qps', '1000', '--kube-api-burst', '2000'],
  ];
}

/** Plays the kubelet of every node. */
export function kwokArgs({ dir, ports }: State): string[] {
  return [
    ...['--config', join(import.meta.dirname, 'stages.yaml'), '--kubeconfig', join(dir, 'kubeconfigs', 'kwok')],
    ...['--manage-all-nodes', '--cidr', '10.0.0.0/16', '--server-address', `127.0.0.1:${ports.kwok}`],
    ...['--node-lease-duration-seconds', '40'],
  ];
}
