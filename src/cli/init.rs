//! `faas-jails init` and `deinit`: a host made ready, and as it was before.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::fault::{Context, Fault, Kind, Result};
use crate::platform;
use crate::setup::{self, Choices, Item, MarkedFile, Missing, Secrets, StateDirectory};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only tell what is missing, and change nothing; exit status 69 if something is
    #[arg(long)]
    check: bool,
    /// FreeBSD: add the two anchor lines to /etc/pf.conf, if pf accepts the result
    #[arg(long)]
    write_pf: bool,
    /// FreeBSD: also get ready for images of Linux programs
    #[arg(long)]
    linux: bool,
    /// FreeBSD: where there is no pool, make one on this file [default: pool.img in the state directory]
    #[arg(long, value_name = "FILE")]
    pool_file: Option<PathBuf>,
    /// FreeBSD: how large that file may become, in gigabytes
    #[arg(long, value_name = "GB", default_value_t = 20)]
    pool_size: u64,
}

#[derive(Debug, clap::Args)]
pub struct Removal {
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

/// The configuration as it will be: of the file, or of the one that init writes.
pub fn config(path: Option<&Path>) -> Result<Config> {
    let file = path.unwrap_or(Config::default_path());
    match file.exists() {
        true => Config::load(Some(file)),
        false => Config::read(&setup::first_config(), |name| std::env::var(name).ok()),
    }
}

pub fn run(config: &Config, path: Option<&Path>, arguments: Arguments) -> Result<()> {
    let bytes = arguments.pool_size.checked_mul(1 << 30).filter(|bytes| *bytes > 0);
    let pool_bytes = bytes.ok_or_else(|| Fault::invalid(format!("no pool has {} gigabytes", arguments.pool_size)))?;
    let what = if arguments.check { Missing::Tell } else { Missing::Make };
    let choices =
        Choices { write_pf: arguments.write_pf, pool_file: arguments.pool_file, pool_bytes, linux: arguments.linux };
    setup::provide(&items(config, path, &choices), what, &mut std::io::stdout())
}

pub fn remove(config: &Config, path: Option<&Path>, removal: &Removal) -> Result<()> {
    if !removal.yes && !confirmed()? {
        return Err(Fault::invalid("nothing was removed; faas-jails deinit --yes does it without asking"));
    }
    match super::purge::run(config, &super::purge::Arguments { all: true }) {
        // Where storage or rights are missing, nothing runs on them.
        Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Unsupported | Kind::Denied) => {
            println!("{:9} {:16} {fault}", "left", "functions");
        }
        other => other?,
    }
    let items = items(config, path, &Choices::default());
    setup::withdraw(&items, &mut std::io::stdout())
}

/// Asks on a terminal.
fn confirmed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("Remove all functions, images and what init made on this host? [y/N] ");
    std::io::stdout().flush().context(|| "cannot write")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context(|| "cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What every host needs, around what this one's system needs.
fn items(config: &Config, path: Option<&Path>, choices: &Choices) -> Vec<Box<dyn Item>> {
    let file = MarkedFile {
        name: "configuration",
        path: path.unwrap_or(Config::default_path()).to_owned(),
        content: setup::first_config(),
        mode: 0o644,
        hint: String::new(),
    };
    let mut items: Vec<Box<dyn Item>> =
        vec![Box::new(file), Box::new(StateDirectory::of(config)), Box::new(Secrets::of(config))];
    let token = crate::island::item(&config.island, &config.secret_mount_path);
    items.extend(token.map(|token| Box::new(token) as Box<dyn Item>));
    items.extend(platform::items(config, choices));
    items.push(Box::new(crate::build::base::Step::new(config, super::image::progress())));
    items
}
