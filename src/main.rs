//! The faas-jails program: see `faas-jails --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    faas_jails::cli::main()
}
