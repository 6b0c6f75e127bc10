//! `faas-jails completions` and `man`: made from the definition of the command line.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::table::print;
use crate::fault::{Context, Result};

#[derive(Debug, clap::Args)]
pub struct Completions {
    /// Whose completions
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub struct Pages {
    /// Where the pages go; made if it is not there
    dir: PathBuf,
}

/// Prints a script for a shell to source.
pub fn completions(arguments: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "faas-jails", &mut script);
    // clap_complete 4.6 calls a verb of a program with a hyphen by two names in its script for bash.
    let script = String::from_utf8_lossy(&script).replace("faas__subcmd__jails", "faas__jails");
    print(&script).map(drop)
}

/// Writes a page of section 8 for the program and one for each verb.
pub fn man(arguments: &Pages) -> Result<()> {
    let dir = &arguments.dir;
    std::fs::create_dir_all(dir).context(|| format!("cannot make {}", dir.display()))?;
    let mut command = super::Arguments::command();
    // Gives every verb its full name, `faas-jails image load`.
    command.build();
    write_page(&command, dir)
}

fn write_page(command: &Command, dir: &Path) -> Result<()> {
    let man = Man::new(command.clone()).section("8");
    let path = dir.join(man.get_filename());
    let mut page = Vec::new();
    man.render(&mut page).context(|| format!("cannot make {}", path.display()))?;
    std::fs::write(&path, page).context(|| format!("cannot write {}", path.display()))?;
    let verbs = command.get_subcommands().filter(|verb| verb.get_name() != "help");
    verbs.into_iter().try_for_each(|verb| write_page(verb, dir))
}
