//! What faas-jails costs, each figure beside that of a named reference measured in the same run.
//!
//! `cargo bench` runs everything; `cargo bench -- invoke start` runs what is named. As root, on a machine that
//! tools/setup.sh bench and tools/stock.sh bench have prepared. Every program that a benchmark starts listens on
//! loopback, or in a namespace of its own, and ends with it.
//!
//! Rounds of the things compared alternate, and what is printed is the median, so that a load that comes and
//! goes meets all of them. On a machine that does other work the ratios still mean something; times do not.

#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../../tests/support/mod.rs"]
mod support;
#[allow(dead_code)]
#[path = "../../tests/support/zpool.rs"]
mod zpool;

mod build;
mod elastic;
mod idle;
mod images;
mod invoke;
mod island;
mod load;
mod process;
mod report;
mod servers;
mod start;
mod status;
mod tree;

/// The benchmarks, by name, in the order they run.
const ALL: [(&str, fn()); 9] = [
    ("invoke", invoke::run),
    ("start", start::run),
    ("status", status::run),
    ("idle", idle::run),
    ("images", images::run),
    ("build", build::run),
    ("island", island::run),
    ("wake", elastic::wake),
    ("elastic", elastic::run),
];

fn main() {
    // cargo bench adds --bench.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|word| ALL.iter().all(|(name, _)| name != word)) {
        eprintln!("no benchmark {unknown}; there are {}", ALL.map(|(name, _)| name).join(", "));
        std::process::exit(2);
    }
    if !support::is_root() {
        eprintln!("benchmarks start sandboxes, and need root");
        std::process::exit(1);
    }
    report::machine();
    for (name, run) in ALL {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            run();
        }
    }
}
