//! `faas-jails info`: what this host offers.

use crate::config::Config;
use crate::fault::Result;
use crate::platform;

pub fn run(config: &Config) -> Result<()> {
    let facts = platform::probe(config);
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    println!("{:width$}  {}", "faas-jails", env!("CARGO_PKG_VERSION"));
    println!("{:width$}  {}", "root", config.root.display());
    println!("{:width$}  {}", "realm", config.realm);
    for (name, value) in facts {
        println!("{name:width$}  {value}");
    }
    Ok(())
}
