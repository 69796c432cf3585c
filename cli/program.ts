import { Argument, Command, Option } from 'commander';
import type { Cli } from './cli.ts';
import type { ExitCode } from './failure.ts';
import { addFlows } from './flows.ts';
import { collectWindows } from './gate.ts';
import { KINDS } from './kinds.ts';
import {
  addFileOptions,
  collect,
  collectPairs,
  confirmOption,
  durationOption,
  limitOption,
  outputOption,
  portNumber,
  wholeNumber,
} from './options.ts';

/** Runs a command with what every command is given. */
export type Runner = (work: (cli: Cli) => Promise<void> | Promise<ExitCode>) => Promise<void>;

/** What the program needs to know. */
export interface ProgramOptions {
  readonly run: Runner;
  readonly version: string;
}

/**
 * The table of commands. Nothing of a command is loaded before it is called, so that help, version and completion are
 * instant; completion scripts and docs/reference/cli.md are written from this table.
 */
export function createProgram({ run, version }: ProgramOptions): Command {
  const program = new Command('brokkr')
    .description('Distributes Kubernetes objects to a fleet of clusters')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .option('--broker <url>', 'address of the broker (BROKKR_BROKER_URL)')
    .option('--pak-file <file>', 'file with the key (the key itself: BROKKR_PAK)')
    .option('--ca-file <file>', "certificates to trust beside the system's (BROKKR_CA_FILE)")
    .option('--context <name>', 'context of ~/.brokkr/config to use (its place: BROKKR_CONFIG)')
    .showHelpAfterError('(--help says more)')
    .exitOverride();
  addUp(program, run);
  addPublishing(program, run);
  addCommands(program, run);
  addLooking(program, run);
  addCreating(program, run);
  addTargeting(program, run);
  addKeys(program, run);
  addFlows(program, run);
  addRest(program, run, version);
  return program;
}

function addUp(program: Command, run: Runner): void {
  program
    .command('up')
    .description('run a broker and an agent on this machine, with an example')
    .option('--once', 'end when the example is healthy: 0, or non-zero with the reason')
    .option('--kubeconfig <file>', 'cluster of the agent (KUBECONFIG); without one, a local control plane')
    .addOption(new Option('--port <port>', 'port of the broker on 127.0.0.1').argParser(portNumber).default(3000))
    .option('--data-dir <folder>', 'where everything is kept; a second start continues there')
    .addOption(durationOption('--timeout <duration>', 'how long the example may take from its publication on', '5m'))
    .action((options) => run(async (cli) => (await import('./up.ts')).up(cli, options)));
}

function addPublishing(program: Command, run: Runner): void {
  addFileOptions(program.command('apply'))
    .description('publish files as a stack')
    .requiredOption('--stack <name>', 'the stack; created when there is none of this name')
    .option('--label <label>', 'labels of the stack, exactly these (repeatable)', collect)
    .option('--annotation <key=value>', 'annotations of the stack, exactly these (repeatable)', collectPairs)
    .option('--agent <agent>', 'direct assignments, exactly these (repeatable)', collect)
    .option('--options <file>', 'options of the stack, exactly these: YAML or JSON, see options.md')
    .option('--option <name=value>', 'an option beside those of the file (repeatable)', collectPairs)
    .addOption(confirmOption())
    .option('--selector <file>', 'selector of the stack, YAML or JSON; none takes it away')
    .option('--not-before <time>', 'agents get this content at this moment at the earliest (RFC 3339)')
    .option('--window <window>', 'agents get it only then: [DAYS] HH:MM DURATION [ZONE] (repeatable)', collectWindows)
    .option('--now', 'take the gate of what is published away')
    .option('--wait', 'wait until every targeted agent has applied it and is healthy')
    .addOption(durationOption('--timeout <duration>', 'how long to wait', '5m'))
    .addOption(
      new Option('--validation <mode>', 'none: store the text as it is, agents judge').choices(['full', 'none']).default('full'),
    )
    .option('--dry-run', 'check and say what would change, change nothing')
    .action((options) => run(async (cli) => (await import('./apply.ts')).apply(cli, options, process.stdin)));
  addFileOptions(program.command('diff'))
    .description('show what an apply would change; exit code 3 when something')
    .requiredOption('--stack <name>', 'the stack')
    .action((options) => run(async (cli) => (await import('./diff.ts')).diff(cli, options, process.stdin)));
}

function addCommands(program: Command, run: Runner): void {
  const stack = (name: string, description: string) =>
    program.command(name).description(description).argument('<stack>', 'name or id');
  const waiting = (command: Command) =>
    command
      .option('--wait', 'wait until every targeted agent has applied it and is healthy')
      .addOption(durationOption('--timeout <duration>', 'how long to wait', '5m'));
  waiting(
    stack('rollback', 'make an earlier generation the head again; without one named, the last that was good on every agent')
      .addOption(new Option('--to <generation>', 'this generation, with its options').argParser(wholeNumber))
      .addOption(new Option('--revision <number>', 'this revision, with the options it had last').argParser(wholeNumber)),
  ).action((name, options) => run(async (cli) => (await import('./rollback.ts')).rollback(cli, name, options)));
  waiting(stack('retry', 'let agents that refused the head, or went back from it, try again')).action((name, options) =>
    run(async (cli) => (await import('./rollback.ts')).retry(cli, name, options)),
  );
  for (const [name, paused, description] of [
    ['pause', true, 'apply nothing, prune nothing, correct no drift, until resumed'],
    ['resume', false, 'end a pause'],
  ] as const) {
    stack(name, description)
      .option('--agent <agent>', 'on this agent only')
      .action((given, options) => run(async (cli) => (await import('./pause.ts')).setPaused(cli, given, paused, options)));
  }
  stack('set', 'change single options of a stack, for example approve_deletes=40')
    .argument('<name=value...>', 'see options.md', collectPairs)
    .action((name, option) => run(async (cli) => (await import('./set.ts')).set(cli, name, option)));
}

function addLooking(program: Command, run: Runner): void {
  program
    .command('get')
    .description('list agents, generators, stacks, deployments of a stack, events or keys')
    .addArgument(new Argument('<kind>', 'what').choices(KINDS))
    .argument('[name]', 'name or id of one; for deployments, the stack')
    .addOption(outputOption())
    .addOption(limitOption(500))
    .option('--stack <name>', 'events about this stack')
    .option('--agent <agent>', 'events of this agent')
    .option('--label <label>', 'agents or stacks with this label')
    .action((kind, name, options) => run(async (cli) => (await import('./get.ts')).get(cli, kind, name, options)));
  program
    .command('status')
    .description('show where a stack stands on every agent')
    .argument('<stack>', 'name or id')
    .option('-w, --watch', 'go on at every change')
    .addOption(outputOption())
    .action((stack, options) => run(async (cli) => (await import('./status.ts')).status(cli, stack, options)));
  program
    .command('explain')
    .description('ask an agent what is wanted, what is live, since when, and why they differ; exit code 5 without its answer')
    .argument('<stack>', 'name or id')
    .argument('[object]', 'KIND, KIND/NAME or KIND.GROUP/NAME')
    .option('-n, --namespace <name>', 'only objects in this namespace')
    .option('--agent <agent>', 'NAME, CLUSTER/NAME or id; needed when there are several')
    .addOption(outputOption())
    .action((stack, object, options) =>
      run(async (cli) => (await import('./explain-stack.ts')).explainStack(cli, stack, object, options)),
    );
  program
    .command('history')
    .description('show what a stack was, newest first')
    .argument('<stack>', 'name or id')
    .option('--at <time>', 'what it was at this moment (RFC 3339)')
    .addOption(limitOption(50))
    .addOption(outputOption())
    .action((stack, options) => run(async (cli) => (await import('./history.ts')).history(cli, stack, options)));
}

function addCreating(program: Command, run: Runner): void {
  const create = program.command('create').description('create an agent, a generator or a key');
  create
    .command('agent')
    .description('create an agent; prints its key, which is shown only once')
    .argument('<name>', 'name, unique in its cluster')
    .requiredOption('--cluster <name>', 'name of its cluster')
    .option('--label <label>', 'label (repeatable)', collect)
    .option('--annotation <key=value>', 'annotation (repeatable)', collectPairs)
    .option('--generator <generator>', 'generator to register it with (repeatable)', collect)
    .addOption(outputOption())
    .action((name, options) => run(async (cli) => (await import('./create.ts')).createAgent(cli, name, options)));
  create
    .command('generator')
    .description('create a generator; prints its key, which is shown only once')
    .argument('<name>', 'name')
    .option('--description <text>', 'what it is for')
    .addOption(outputOption())
    .action((name, options) => run(async (cli) => (await import('./create.ts')).createGenerator(cli, name, options)));
  create
    .command('key')
    .description('create a further key; it is shown only once')
    .argument('<name>', 'what it is called')
    .addOption(new Option('--role <role>', 'role').choices(['admin', 'agent', 'generator']))
    .option('--agent <agent>', 'agent it is for')
    .option('--generator <generator>', 'generator it is for')
    .option('--read-only', 'it may only read')
    .addOption(durationOption('--expires <duration>', 'when it stops working, from now'))
    .addOption(outputOption())
    .action((name, options) => run(async (cli) => (await import('./create.ts')).createKey(cli, name, options)));
  program
    .command('delete')
    .description('delete an agent, a generator with its stacks, a stack with its objects, or a key')
    .addArgument(new Argument('<kind>', 'what').choices(['agent', 'generator', 'stack', 'key']))
    .argument('<name>', 'name or id')
    .option('--wait', 'stacks: wait until every agent has removed the objects')
    .addOption(durationOption('--timeout <duration>', 'how long to wait', '5m'))
    .action((kind, name, options) => run(async (cli) => (await import('./delete.ts')).remove(cli, kind, name, options)));
}

function addTargeting(program: Command, run: Runner): void {
  const kind = () => new Argument('<kind>', 'what').choices(['agent', 'stack']);
  program
    .command('target')
    .description('assign a stack to an agent directly')
    .argument('<agent>', 'NAME, CLUSTER/NAME or id')
    .argument('<stack>', 'name or id')
    .action((agent, stack) => run(async (cli) => (await import('./target.ts')).target(cli, agent, stack)));
  program
    .command('untarget')
    .description('take a direct assignment back')
    .argument('<agent>', 'NAME, CLUSTER/NAME or id')
    .argument('<stack>', 'name or id')
    .action((agent, stack) => run(async (cli) => (await import('./target.ts')).untarget(cli, agent, stack)));
  program
    .command('label')
    .description('add labels, or remove them with a minus behind')
    .addArgument(kind())
    .argument('<name>', 'name or id')
    .argument('<label...>', 'LABEL or LABEL-')
    .action((what, name, labels) => run(async (cli) => (await import('./marks.ts')).label(cli, what, name, labels)));
  program
    .command('annotate')
    .description('set annotations, or remove them with a minus behind')
    .addArgument(kind())
    .argument('<name>', 'name or id')
    .argument('<annotation...>', 'KEY=VALUE or KEY-')
    .action((what, name, pairs) => run(async (cli) => (await import('./marks.ts')).annotate(cli, what, name, pairs)));
  program
    .command('targets')
    .description('why stacks reach agents')
    .command('explain')
    .description('show which rule brings a stack to an agent, or which nearly does')
    .option('--agent <agent>', 'only this agent')
    .option('--stack <name>', 'only this stack')
    .addOption(outputOption())
    .action((options) => run(async (cli) => (await import('./explain.ts')).explain(cli, options)));
}

function addKeys(program: Command, run: Runner): void {
  const rotate = program.command('rotate').description('replace keys by a new one, which is shown only once');
  const add = (kind: 'agent' | 'generator' | 'admin', description: string) => {
    const command = rotate.command(kind).description(description);
    if (kind !== 'admin') command.argument('<name>', 'name or id');
    command
      .addOption(durationOption('--grace <duration>', 'how long old keys go on working', '0s'))
      .addOption(outputOption())
      .action((...given) => {
        const [name, options] = kind === 'admin' ? ['', given[0]] : [given[0], given[1]];
        return run(async (cli) => (await import('./rotate.ts')).rotate(cli, kind, name, options));
      });
  };
  add('agent', "replace an agent's keys");
  add('generator', "replace a generator's keys");
  add('admin', 'replace all admin keys');
  program
    .command('generate-pak')
    .description('make a key and its hash, offline; for BROKKR__BROKER__PAK_HASH')
    .addOption(outputOption())
    .action((options) => run(async (cli) => (await import('./generate-pak.ts')).generatePak(cli, options.output)));
}

function addRest(program: Command, run: Runner, version: string): void {
  program
    .command('completion')
    .description('print a completion script: source <(brokkr completion bash)')
    .addArgument(new Argument('<shell>', 'shell').choices(['bash', 'zsh', 'fish']))
    .action((shell) =>
      run(async ({ terminal }) => terminal.line((await import('./completion.ts')).completionScript(program, shell))),
    );
  program
    .command('version')
    .description('print the version')
    .action(() => run(({ terminal }) => Promise.resolve(terminal.line(version))));
}
