//! `kubeless completion SHELL`: the script that makes a shell complete this program's words. Must never contact
//! anything.

use crate::cli::{Exit, output};
use clap::{Command, ValueEnum};
use clap_complete::Shell;
use std::io::Write;

const EXAMPLES: &str = "Examples:
  kubeless completion bash > /etc/bash_completion.d/kubeless            every bash
  source <(kubeless completion bash)                                    this bash
  kubeless completion zsh > \"${fpath[1]}/_kubeless\"                     every zsh
  kubeless completion fish > ~/.config/fish/completions/kubeless.fish   every fish
  kubeless completion powershell | Out-String | Invoke-Expression       this PowerShell
";

/// Shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
enum For {
    Bash,
    Zsh,
    Fish,
    #[value(name = "powershell", alias = "pwsh")]
    PowerShell,
}

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Shell.
    #[arg(value_enum)]
    shell: For,
}

/// Runs the command. `whole` is the command line with every trigger kind in it.
pub fn run(args: &Args, mut whole: Command) -> anyhow::Result<Exit> {
    let shell = match args.shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
        For::PowerShell => Shell::PowerShell,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut whole, "kubeless", &mut script);
    output::stdout().write_all(&script)?;
    Ok(Exit::Ok)
}
