//! The command line: one file a verb.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::config::{Config, LogFormat};
use crate::fault::{Fault, Kind, Result};
use crate::image::Store;
use crate::platform::{self, Platform};

mod address;
mod build;
mod client;
mod describe;
mod exec;
mod image;
mod info;
mod init;
mod logs;
mod ps;
mod purge;
mod serve;
mod stats;
mod table;
mod top;

/// Run OpenFaaS functions in FreeBSD jails, or on Linux in namespaces.
///
/// Point faas-cli at it: faas-cli deploy --gateway http://127.0.0.1:8081 --image IMAGE --name NAME
#[derive(Debug, Parser)]
#[command(name = "faas-jails", version, propagate_version = true)]
struct Arguments {
    /// The configuration file [default: /etc/faas-jails/config.toml, on FreeBSD /usr/local/etc/faas-jails.toml]
    #[arg(long, global = true, env = "FAAS_JAILS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the OpenFaaS provider API until SIGTERM; functions go on running afterwards
    Serve(serve::Arguments),
    /// List the replicas that run
    Ps(ps::Arguments),
    /// Show what a function's replicas print
    Logs(logs::Arguments),
    /// Run a program in a live replica, as the image's user; its exit status is this one's
    Exec(exec::Arguments),
    /// Show what replicas use: processor, memory, processes
    Stats(stats::Arguments),
    /// Show functions as they are called: replicas, requests, latency, cold starts
    Top(top::Arguments),
    /// Compile the Go functions of a stack file into images, in a sandbox
    Build(build::Arguments),
    /// Load, pull, list and remove images
    #[command(subcommand)]
    Image(image::Verb),
    /// Who holds which address; add networks to the pool, keep addresses back
    #[command(subcommand)]
    Address(address::Verb),
    /// Show what this host offers, and what is missing
    Info,
    /// Make this host ready, a line for each step; safe to repeat
    Init(init::Arguments),
    /// Take away what init made on this host, functions included
    Deinit(init::Removal),
    /// Remove every replica, link and rule of this realm; functions stay deployed and start with the next serve
    Purge(purge::Arguments),
    /// Print a script that completes this command line in a shell
    Completions(describe::Completions),
    /// Write the manual pages
    Man(describe::Pages),
}

/// Parses the arguments and runs the verb. Exit codes are those of sysexits(3).
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("faas-jails: {fault}");
            ExitCode::from(match fault.kind() {
                Kind::Invalid => 64,     // EX_USAGE
                Kind::NotFound => 66,    // EX_NOINPUT
                Kind::Unsupported => 69, // EX_UNAVAILABLE
                Kind::System => 71,      // EX_OSERR
                Kind::Exhausted => 73,   // EX_CANTCREAT
                Kind::Busy => 75,        // EX_TEMPFAIL
                Kind::Denied => 77,      // EX_NOPERM
            })
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let path = arguments.config.as_deref();
    let config = match &arguments.verb {
        // The one verb that may come before there is a file.
        Verb::Init(_) => init::config(path)?,
        // These need none.
        Verb::Completions(arguments) => return describe::completions(arguments).map(|()| ExitCode::SUCCESS),
        Verb::Man(arguments) => return describe::man(arguments).map(|()| ExitCode::SUCCESS),
        _ => Config::load(path)?,
    };
    start_logging(config.log_format);
    match arguments.verb {
        Verb::Exec(arguments) => return exec::run(&config, arguments),
        Verb::Completions(_) | Verb::Man(_) => Ok(()),
        Verb::Serve(arguments) => serve::run(config, &arguments),
        Verb::Ps(arguments) => ps::run(&config, &arguments),
        Verb::Logs(arguments) => logs::run(&config, &arguments),
        Verb::Stats(arguments) => stats::run(&config, &arguments),
        Verb::Top(arguments) => top::run(&config, &arguments),
        Verb::Build(arguments) => build::run(config, &arguments),
        Verb::Image(verb) => image::run(&config, verb),
        Verb::Address(verb) => address::run(&config, verb),
        Verb::Info => info::run(&config),
        Verb::Init(arguments) => init::run(&config, path, arguments),
        Verb::Deinit(arguments) => init::remove(&config, path, &arguments),
        Verb::Purge(arguments) => purge::run(&config, &arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Log lines go to standard error; `RUST_LOG` chooses which.
fn start_logging(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,actix_server=warn,actix_http=off"));
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false);
    match format {
        LogFormat::Human => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// The platform and the images of this configuration.
fn open(config: &Config) -> Result<(Platform, Arc<Store>)> {
    let platform = platform::open(config)?;
    let images = Store::open(&config.root, Arc::clone(&platform.storage), config.images.settings())?;
    Ok((platform, Arc::new(images)))
}

/// Takes the root directory for one daemon; the lock goes with the process. A daemon that was killed while it started a
/// command leaves it to that for a moment.
fn lock(config: &Config) -> Result<std::fs::File> {
    use crate::fault::Context;
    if !rustix::process::geteuid().is_root() {
        let message = "faas-jails needs root; start it with sudo or as a service";
        return Err(Fault::new(Kind::Denied, message));
    }
    let path = config.root.join("daemon.lock");
    std::fs::create_dir_all(&config.root).context(|| format!("cannot make {}", config.root.display()))?;
    let file = std::fs::File::create(&path).context(|| format!("cannot open {}", path.display()))?;
    for _ in 0..20 {
        if file.try_lock().is_ok() {
            return Ok(file);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Err(Fault::new(
        Kind::Busy,
        format!("{} is in use by another faas-jails; stop that one first", config.root.display()),
    ))
}
