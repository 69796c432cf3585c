import { type Command, InvalidArgumentError, Option } from 'commander';
import { FLOW_KINDS } from '#flows/model/model.ts';
import { addFileOptions, collect, confirmOption } from './options.ts';
import type { Runner } from './program.ts';

/** The commands of `brokkr flows`; none of them needs a broker, unless it says so. */
export function addFlows(program: Command, run: Runner): void {
  const flows = program.command('flows').description('declare, compile and prove who may talk to whom');
  addCheck(flows, run);
  addLint(flows, run);
  addCompile(flows, run);
  addList(flows, run);
  addEvaluate(flows, run);
  addConnectivity(flows, run);
  addExplain(flows, run);
  addVerify(flows, run);
  addDiff(flows, run);
  addDocuments(flows, run);
  addPath(flows, run);
  addPublish(flows, run);
}

/** The options of every command that reads a flow set. */
function addModelOptions(command: Command): Command {
  return addSelectionOptions(
    command.requiredOption('-f, --filename <path>', 'a flow set, or a folder with flows.yaml and perhaps facts.yaml'),
  );
}

/** The options that say for what a flow set is resolved. */
function addSelectionOptions(command: Command): Command {
  return command
    .option('--facts <file>', 'facts of the cluster; what they leave out is assumed')
    .option(
      '--profile <name>',
      'profile; further ones are overlays (repeatable); default: production, if there is one',
      collectNames,
    )
    .option('--with <features>', 'features to switch on, with commas (repeatable)', collectNames)
    .option('--without <features>', 'features to switch off (repeatable)', collectNames)
    .addOption(new Option('--today <date>', 'the day for which flows must not have expired; default: today').argParser(day));
}

function addCheck(flows: Command, run: Runner): void {
  addModelOptions(flows.command('check'))
    .description('check a flow set, in every profile unless one is named')
    .action((options) => run(async (cli) => (await import('./flows/check.ts')).check(cli, options)));
}

function addLint(flows: Command, run: Runner): void {
  addModelOptions(flows.command('lint'))
    .description('say what is suspicious in a flow set, or in policies; exit code 1 with an error, 3 with warnings alone')
    .option('--accepted <file>', 'findings in policies that are accepted: a YAML list of {lint, subject, reason}')
    .addOption(new Option('-o, --output <format>', 'for people, or as data').choices(['table', 'json']).default('table'))
    .action((options) => run(async (cli) => (await import('./flows/lint.ts')).lint(cli, options)));
}

function addCompile(flows: Command, run: Runner): void {
  addModelOptions(flows.command('compile'))
    .description('write the policies of a flow set; notes about them go to stderr')
    .option('-o, --output <format>', 'yaml, json, or a folder to write a file into', 'yaml')
    .addOption(new Option('--granularity <what>', 'one policy for each').choices(['endpoint', 'flow']).default('endpoint'))
    .option('--cluster <name>', 'the cluster, in a flow set over several')
    .option('--allow-broad', 'let a rule for the API server have all addresses')
    .action((options) => run(async (cli) => (await import('./flows/compile.ts')).compile(cli, options)));
}

function addList(flows: Command, run: Runner): void {
  const directions = ['north-south', 'east-west', 'inbound', 'outbound', 'internal', 'local'];
  addModelOptions(flows.command('list'))
    .description('list the flows of a flow set; as data with its zones and endpoints')
    .addOption(new Option('--direction <direction>', 'only these').choices(directions))
    .addOption(new Option('--kind <kind>', 'only these').choices(FLOW_KINDS))
    .option('--table <name>', 'only those of this table')
    .addOption(new Option('-o, --output <format>', 'for people, or as data').choices(['table', 'json', 'yaml']).default('table'))
    .action((options) => run(async (cli) => (await import('./flows/list.ts')).list(cli, options)));
}

/** The options of every command that evaluates manifests. */
function addClusterOptions(command: Command): Command {
  const fromCni = 'any-ip: also with those of pods; external-only: not; default: by --cni';
  return command
    .addOption(
      new Option('--cni <name>', 'network of the cluster')
        .choices(['generic', 'calico', 'cilium', 'aws', 'ovn'])
        .default('generic'),
    )
    .addOption(
      new Option('--ip-block-mode <mode>', `with which addresses an ipBlock is compared; ${fromCni}`).choices([
        'any-ip',
        'external-only',
      ]),
    )
    .option('--pod-cidr <cidr>', 'where pods without a known address are (repeatable); default: 10.244.0.0/16', collect)
    .addOption(new Option('-o, --output <format>', 'for people, or as data').choices(['table', 'json']).default('table'));
}

/** The options of commands that take a policy set as manifests or as a flow set. */
function addPolicySetOptions(command: Command): Command {
  const files = 'further manifests, such as the workloads of a flow set: a file, a folder or - (repeatable)';
  return addSelectionOptions(
    addClusterOptions(
      command.option('-f, --filename <path>', files, collect).option('-R, --recursive', 'read folders with all that is below'),
    ),
  );
}

function addEvaluate(flows: Command, run: Runner): void {
  addClusterOptions(addFileOptions(flows.command('evaluate')))
    .description('say of each cell of a list whether the policies in manifests allow it')
    .requiredOption('--cells <file>', 'a list of {"src", "dst", "protocol", "port"}, or - for stdin')
    .action((options) => run(async (cli) => (await import('./flows/evaluate.ts')).evaluate(cli, options, process.stdin)));
}

function addConnectivity(flows: Command, run: Runner): void {
  addClusterOptions(addFileOptions(flows.command('connectivity')))
    .description('list everything that the policies in manifests allow')
    .action((options) => run(async (cli) => (await import('./flows/connectivity.ts')).connectivity(cli, options, process.stdin)));
}

function addExplain(flows: Command, run: Runner): void {
  addClusterOptions(addFileOptions(flows.command('explain')))
    .description(
      'say what allows or denies one connection, and what the nearest rule would have to say; exit code 3 when it is not open',
    )
    .argument('[src]', 'namespace/pod, or an address')
    .argument('[dst]', 'namespace/pod, namespace/service, or an address')
    .argument('[port]', 'such as 5432 or 53/UDP; of a Service, the port of the Service')
    .option('--namespace <name>', 'in place of a connection: what policies admit, for all pods of a namespace')
    .action((from, to, port, options) =>
      run(async (cli) => (await import('./flows/explain.ts')).explain(cli, { from, to, port }, options, process.stdin)),
    );
}

function addVerify(flows: Command, run: Runner): void {
  addPolicySetOptions(flows.command('verify'))
    .description('compare what policies allow with a truth table, or with another policy set; exit code 3 when they differ')
    .argument('<path>', 'manifests, or a folder with flows.yaml')
    .option('--expect <file>', 'CSV with source,destination,protocol,port,allowed')
    .option('--against <path>', 'manifests, or a folder with flows.yaml')
    .action((path, options) => run(async (cli) => (await import('./flows/verify.ts')).verify(cli, path, options, process.stdin)));
}

function addDiff(flows: Command, run: Runner): void {
  addPolicySetOptions(flows.command('diff'))
    .description('list what becomes reachable, and what no longer is, between two policy sets; exit code 3 when anything')
    .argument('<before>', 'manifests, or a folder with flows.yaml')
    .argument('<after>', 'the same')
    .option('--adr <title>', 'print the stub of a decision record')
    .action((before, after, options) =>
      run(async (cli) => (await import('./flows/diff.ts')).diffFlows(cli, { before, after }, options, process.stdin)),
    );
}

function addPublish(flows: Command, run: Runner): void {
  addModelOptions(flows.command('publish'))
    .description('publish a flow set to the clusters of agents, for the facts of each; exit code 3 when an approval is missing')
    .requiredOption('--target <label>', 'agents with this label get it (repeatable)', collect)
    .addOption(confirmOption().default(60))
    .option('--approve-gained', 'agree to connections that are gained from untrusted zones')
    .option('--approve-lost', 'agree to connections that required flows lose')
    .option('--yes', 'agree to both')
    .option('--dry-run', 'say what would change, publish nothing')
    .action((options) => run(async (cli) => (await import('./flows/publish.ts')).publish(cli, options)));
}

function addDocuments(flows: Command, run: Runner): void {
  const tableFormat = () => new Option('-o, --output <format>', 'format').choices(['md', 'csv', 'json']).default('md');
  addModelOptions(flows.command('matrix'))
    .description('print a table of a flow set as documents have it')
    .option('--table <name>', 'another table than the connection matrix; implicit and inventory are two')
    .addOption(tableFormat())
    .action((options) => run(async (cli) => (await import('./flows/matrix.ts')).matrix(cli, options)));
  addModelOptions(flows.command('firewall'))
    .description('print what the firewall of a host has to let through')
    .requiredOption('--host <name>', 'an endpoint; or a zone or a cluster, for what crosses its edge')
    .addOption(new Option('--cloud <platform>', 'in the form of a platform').choices(['aws', 'gcp', 'azure', 'nftables']))
    .addOption(tableFormat())
    .action((options) => run(async (cli) => (await import('./flows/firewall.ts')).firewall(cli, options)));
  addModelOptions(flows.command('diagram'))
    .description('draw a flow set')
    .option('--layers', 'boxes by layer, not by zone')
    .option('--table <name>', 'only the flows of this table')
    .addOption(new Option('-o, --output <format>', 'format').choices(['mermaid', 'mermaid-c4', 'dot', 'svg']).default('mermaid'))
    .action((options) => run(async (cli) => (await import('./flows/diagram.ts')).diagram(cli, options)));
}

function addPath(flows: Command, run: Runner): void {
  addModelOptions(flows.command('path'))
    .description('print the hops of the flows from an endpoint')
    .argument('<from>', 'the endpoint that opens the connection')
    .argument('[to]', 'the endpoint it is for; default: all that flows lead to')
    .addOption(new Option('-o, --output <format>', 'for people, or as data').choices(['table', 'json']).default('table'))
    .action((from, to, options) => run(async (cli) => (await import('./flows/path.ts')).path(cli, from, to, options)));
}

function collectNames(text: string, before: readonly string[] | undefined): readonly string[] {
  return text.split(',').reduce<readonly string[]>((names, name) => collect(name.trim(), names), before ?? []);
}

function day(text: string): string {
  if (!/^\d{4}-\d{2}-\d{2}$/.test(text)) throw new InvalidArgumentError('it is not a day such as 2026-12-31');
  return text;
}
