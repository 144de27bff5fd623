//! What `--help` teaches beside the flags: examples, exit codes, variables. `-h` is the short form of it.

/// Of every command.
const EXIT_CODES: &str = "Exit codes: 0 pass · 1 internal error · 2 usage · 3 objective missed or regressed, or an acknowledged event lost or \
duplicated · 4 inconclusive · 5 invalid (no data, dead target, generator could not keep up, interrupted)";

const VARIABLES: &str = "Every flag is also an environment variable, LOADGEN_ and its name: LOADGEN_RATE=500 is --rate 500. A flag wins over \
a variable, a variable over a plan file. A flag without a value is set by 1; several values of one flag are separated as on the command line, \
or by a semicolon.";

const SERVER_VARIABLES: &str = "Each variable is beside its flag; a flag wins over a variable.";

const FIRST_STEPS: &str = "Examples:
  # measure the reference server in three modes, in under two minutes
  loadgen run
  # measure a server that already runs
  loadgen run --target http://127.0.0.1:8080
  # has a change made it worse?
  loadgen gate --baseline './old/loadgen serve' --candidate 'loadgen serve'
  # which plans are built in
  loadgen plans
  # completions for this shell
  source <(loadgen completions bash)";

pub(super) const SERVE_EXAMPLES: &str = "Examples:
  # on port 4000, on ./ingest.db, acknowledged from memory
  loadgen serve --listen 127.0.0.1:4000
  # acknowledgements that survive a power cut
  loadgen serve --mode journal-first --database sqlite:events.db
  # one event in a hundred is lost on purpose, to see it found
  loadgen serve --fault drop=0.01";

/// Every command with what it teaches. The examples are those of the commands themselves.
pub(super) fn taught(command: clap::Command) -> clap::Command {
    let command = command
        .after_help("More, with examples: loadgen --help, loadgen COMMAND --help")
        .after_long_help(format!("{FIRST_STEPS}\n\n{VARIABLES}\n\n{EXIT_CODES}"));
    command.mut_subcommands(|inner| {
        let examples = inner.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let more = format!("More, with examples: loadgen {} --help", inner.get_name());
        let variables = if inner.get_name() == "serve" { SERVER_VARIABLES } else { VARIABLES };
        let hidden: &[&str] = if inner.get_name() == "capacity" { &SEARCHED } else { &[] };
        let inner = hidden.iter().fold(inner, |inner, flag| inner.mut_arg(flag, |arg| arg.hide(true)));
        inner.after_help(more).after_long_help(format!("{examples}\n\n{variables}\n\n{EXIT_CODES}"))
    })
}

/// Flags of a plan that say what `capacity` decides: known, to be refused with the reason, and not shown.
const SEARCHED: [&str; 7] = ["rate", "duration", "shape", "replay", "replay_speed", "repeat", "idle"];
