//! `loadgen completions` and `loadgen man`: what a shell and `man` want to know of the commands, made from the commands themselves.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::output::OUTPUT;
use super::terminal::print_text;
use super::{EXIT_INTERNAL, EXIT_USAGE, Failure, invocation};

pub(super) const COMPLETIONS_EXAMPLES: &str = "Examples:
  # for this shell only
  source <(loadgen completions bash)
  # for good
  loadgen completions zsh > ~/.zfunc/_loadgen
  loadgen completions fish > ~/.config/fish/completions/loadgen.fish";

pub(super) const MAN_EXAMPLES: &str = "Examples:
  # read one
  loadgen man run | man -l -
  # install all
  loadgen man --out ~/.local/share/man/man1";

/// Flags of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Print the page of this command [default: of loadgen as a whole]
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Option<String>,

    /// Write a page for each command into this folder, made if it is not there
    #[arg(long, value_name = "DIR", env = "LOADGEN_MAN_OUT", help_heading = OUTPUT)]
    out: Option<PathBuf>,
}

/// Prints; the exit code.
pub(super) fn completions(arguments: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut invocation::tree(), "loadgen", &mut script);
    print_text(&String::from_utf8_lossy(&script));
    Ok(0)
}

/// Prints or writes; the exit code.
pub(super) fn man(arguments: &ManArgs) -> Result<u8, Failure> {
    let mut tree = invocation::tree().disable_help_subcommand(true);
    tree.build();
    let Some(folder) = &arguments.out else {
        let command = match &arguments.command {
            None => &tree,
            Some(name) => tree.find_subcommand(name).ok_or_else(|| no_such_command(&tree, name))?,
        };
        print_text(&page(command)?);
        return Ok(0);
    };
    let fail = |path: &Path, error: std::io::Error| Failure::writing(EXIT_USAGE, "--out", path, &error);
    std::fs::create_dir_all(folder).map_err(|error| fail(folder, error))?;
    for command in std::iter::once(&tree).chain(tree.get_subcommands()) {
        let path = folder.join(Man::new(command.clone()).get_filename());
        std::fs::write(&path, page(command)?).map_err(|error| fail(&path, error))?;
        print_text(&format!("{}\n", path.display()));
    }
    Ok(0)
}

fn no_such_command(tree: &clap::Command, name: &str) -> Failure {
    let names: Vec<&str> = tree.get_subcommands().map(clap::Command::get_name).collect();
    let meant = crate::nearest::did_you_mean(name, names.iter().copied(), "choose one of these");
    Failure(EXIT_USAGE, format!("'{name}': is no command; allowed: {}; {meant}", names.join(", ")))
}

/// As clap_mangen has it, but with the examples as they are written.
fn page(command: &clap::Command) -> Result<String, Failure> {
    let version = concat!("loadgen ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(version).manual("Millrace");
    let mut text = Vec::new();
    let rendered = man
        .render_title(&mut text)
        .and_then(|()| man.render_name_section(&mut text))
        .and_then(|()| man.render_synopsis_section(&mut text))
        .and_then(|()| man.render_description_section(&mut text))
        .and_then(|()| man.render_options_section(&mut text));
    let rendered = match command.has_subcommands() {
        true => rendered.and_then(|()| man.render_subcommands_section(&mut text)),
        false => rendered,
    };
    let rendered = rendered.and_then(|()| more(command).to_writer(&mut text));
    rendered.map_err(|error| Failure(EXIT_INTERNAL, error.to_string()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Examples, variables, exit codes.
fn more(command: &clap::Command) -> Roff {
    let mut roff = Roff::new();
    let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    for paragraph in text.split("\n\n") {
        match paragraph.strip_prefix("Examples:\n") {
            Some(examples) => {
                roff.control("SH", ["EXAMPLES"]);
                roff.control("nf", []);
                for line in examples.lines() {
                    roff.text([roman(line)]);
                }
                roff.control("fi", []);
            }
            None => {
                roff.control("PP", []);
                roff.text([roman(paragraph)]);
            }
        }
    }
    roff
}
