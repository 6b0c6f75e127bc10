//! `faas-jails exec`: one more program in a live replica. Needs root on the host: no port offers this.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use super::client::{Choice, Chosen, Client};
use crate::api::{ReplicaState, ReplicaStatus};
use crate::config::Config;
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::FunctionKey;
use crate::platform;
use crate::provider::{Deployed, environment};
use crate::sandbox::{Exit, Program};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// Set a variable, over those of the function
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The working directory inside [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

/// Runs the program with this process's standard input, output and error, and gives its exit status. One that a
/// signal ended gives 128 and the signal's number, as a shell does.
pub fn run(config: &Config, arguments: Arguments) -> Result<ExitCode> {
    platform::seal()?;
    let key = arguments.chosen.key(config)?;
    let replica = pick(&Client::new(config)?, &key, arguments.chosen.instance.as_deref())?;
    let deployed = Deployed::read(config, &key)?;
    let mut env = environment(&deployed);
    env.extend(arguments.env);
    let stdio = || -> std::io::Result<[OwnedFd; 3]> {
        Ok([
            std::io::stdin().as_fd().try_clone_to_owned()?,
            std::io::stdout().as_fd().try_clone_to_owned()?,
            std::io::stderr().as_fd().try_clone_to_owned()?,
        ])
    };
    let program = Program {
        argv: arguments.program,
        env,
        workdir: arguments.workdir.unwrap_or_else(|| PathBuf::from(&deployed.image.run.workdir)),
        user: deployed.image.run.user,
        open_files: Some(config.limits.open_files),
        stdio: stdio().context(|| "cannot hand over standard input and output")?,
    };
    if replica.state == ReplicaState::Frozen {
        // What enters it would be stopped as well.
        let text = format!("replica {} of {key} is frozen; call the function first", replica.instance);
        return Err(Fault::new(Kind::Busy, text));
    }
    let exit = platform::open(config)?.sandbox.exec(&replica.replica, &program)?;
    Ok(ExitCode::from(match exit {
        Exit::Code(code) => code as u8,
        Exit::Signal(signal) => (128 + signal) as u8,
        Exit::OutOfMemory => 128 + libc::SIGKILL as u8,
        Exit::Unknown => 255,
    }))
}

/// The replica to enter: the one that is named, or the first that is ready, or the first.
fn pick(client: &Client, key: &FunctionKey, instance: Option<&str>) -> Result<ReplicaStatus> {
    let mut replicas = client.replicas(&Choice::of(key), false)?;
    replicas.retain(|r| r.state != ReplicaState::Ended && instance.is_none_or(|id| r.instance == id));
    replicas.sort_by_key(|r| r.state != ReplicaState::Ready);
    replicas.into_iter().next().ok_or_else(|| match instance {
        Some(id) => Fault::not_found(format!("function {key} has no replica {id}; faas-jails ps lists them")),
        None => {
            Fault::not_found(format!("function {key} has no replica that runs; faas-jails ps lists those there are"))
        }
    })
}

fn variable(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is NAME=VALUE".into()),
    }
}
