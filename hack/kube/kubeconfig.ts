import { rename, writeFile } from 'node:fs/promises';

/** What a kubeconfig with one cluster and one token says. */
export interface KubeconfigContent {
  /** `https://host:port`, or `http://…` for a plaintext proxy in front. */
  readonly server: string;
  /** PEM; left out for plaintext. */
  readonly caData?: string;
  readonly token: string;
  /** Default namespace of the context. */
  readonly namespace?: string;
}

/** Writes a kubeconfig that only the user may read, whole or not at all. */
export async function writeKubeconfig(path: string, content: KubeconfigContent): Promise<void> {
  const { server, caData, token, namespace } = content;
  const lines = [
    'apiVersion: v1',
    'kind: Config',
    'current-context: brokkr',
    'contexts:',
    '  - name: brokkr',
    '    context:',
    '      cluster: brokkr',
    '      user: brokkr',
    ...(namespace === undefined ? [] : [`      namespace: ${JSON.stringify(namespace)}`]),
    'clusters:',
    '  - name: brokkr',
    '    cluster:',
    `      server: ${JSON.stringify(server)}`,
    ...(caData === undefined ? [] : [`      certificate-authority-data: ${Buffer.from(caData).toString('base64')}`]),
    'users:',
    '  - name: brokkr',
    '    user:',
    `      token: ${JSON.stringify(token)}`,
    '',
  ];
  await writeFile(`${path}.tmp`, lines.join('\n'), { mode: 0o600 });
  await rename(`${path}.tmp`, path);
}
