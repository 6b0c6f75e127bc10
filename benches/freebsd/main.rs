//! What a replica's start costs on FreeBSD, step by step, each figure beside that of a named reference measured in
//! the same run. `make bench-freebsd` runs it on a machine that ssh reaches; elsewhere there is nothing to measure.
//!
//! Only ratios are printed: the machine may be an emulated one. Rounds of the things compared alternate, and what
//! is printed is the median.

#[cfg(target_os = "freebsd")]
mod ground;
#[cfg(target_os = "freebsd")]
mod many;
#[cfg(target_os = "freebsd")]
#[path = "../compare/report.rs"]
#[allow(dead_code)]
mod report;
#[cfg(target_os = "freebsd")]
mod shell;
#[cfg(target_os = "freebsd")]
mod start;
#[cfg(target_os = "freebsd")]
mod steps;

#[cfg(target_os = "freebsd")]
fn main() {
    steps::listen();
    report::machine();
    start::run();
    shell::run();
    many::run();
}

#[cfg(not(target_os = "freebsd"))]
fn main() {}
