import { createAuthority } from '../certificate-authority.ts';
import { configMap, healthyAt, rigOn } from '../e2e/rig.ts';
import { startGateway, type TestGateway } from '../gateway-rig.ts';
import { useKube } from '../kube.ts';
import { type Program, startBroker, startProcess, type TestBroker, type TestProcess, temporaryDirectory } from '../processes.ts';

/** What runs when a delivery has worked. */
export interface Delivery {
  readonly broker: TestBroker;
  readonly gateway: TestGateway;
  readonly agent: TestProcess;
}

/** Where the programs come from, and what they are to see. */
export interface DeliveryOptions {
  readonly databaseUrl: string;
  readonly program: (name: 'brokkr-broker' | 'brokkr-gateway' | 'brokkr-agent') => Program;
  /** Where the agent keeps its files, as it sees it. */
  readonly dataDir: string;
  /** Gives a file or a directory to the programs and says where they see it; as it is when absent. */
  readonly lend?: (path: string) => Promise<string>;
}

/**
 * Starts broker, gateway and agent, the agent behind the gateway's TLS, and publishes a ConfigMap until it is healthy on the real
 * API server. All of them still run afterwards.
 */
export async function deliver({
  databaseUrl,
  program,
  dataDir,
  lend = (path) => Promise.resolve(path),
}: DeliveryOptions): Promise<Delivery> {
  const certificate = await temporaryDirectory();
  const authority = await createAuthority('edge');
  await authority.issue(certificate, { hosts: ['127.0.0.1'] });
  const kube = await useKube();
  const broker = await startBroker({ databaseUrl, program: program('brokkr-broker') });
  const gateway = await startGateway([await lend(certificate)], [broker.url], {}, program('brokkr-gateway'));
  const rig = rigOn(kube, broker, databaseUrl);
  const { pak, kubeconfigPath, namespace, label } = await rig.register();
  const agent = await startProcess(program('brokkr-agent'), ['start'], {
    BROKKR__AGENT__BROKER_URL: `https://127.0.0.1:${gateway.port}`,
    BROKKR__AGENT__CA_FILE: await lend(authority.certFile),
    BROKKR__AGENT__PAK: pak,
    BROKKR__AGENT__AGENT_NAME: label,
    BROKKR__AGENT__CLUSTER_NAME: 'test',
    BROKKR__AGENT__KUBECONFIG_PATH: await lend(kubeconfigPath),
    BROKKR__AGENT__NAMESPACE: namespace,
    BROKKR__AGENT__DATA_DIR: dataDir,
    BROKKR__AGENT__HEALTH_PORT: '0',
  });
  const stack = await rig.publish(label, configMap(await kube.namespace('delivery'), 'a'), label);
  await rig.status(stack.id, healthyAt(1));
  return { broker, gateway, agent };
}
