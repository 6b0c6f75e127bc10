//! Sky Island's API: what a call of a cached program costs beyond running that program, alone and ten at once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::report::{columns, heading, least, median, row};
use crate::support::git;
use crate::support::sky::Sky;
use crate::support::{Daemon, parts};

const ROUNDS: usize = 40;
const PARALLEL: usize = 10;
const CALL: &str = "Encode(100.1, 80.9)";
const OUTPUT: &str = "100.1/80.9";

pub fn run() {
    if !git::installed() || !parts::installed("go") {
        println!("(without island: needs git and go)\n");
        return;
    }
    let sky = Sky::with(Daemon::with(), "parallel = 10\ncpu_millis = 2000");
    let (_repository, url) = sky.functions();
    let begun = Instant::now();
    assert_eq!(sky.call(&url, CALL), OUTPUT);
    let first = begun.elapsed().as_secs_f64() * 1e3;
    let program = program(&sky.daemon.root).expect("the program that was built");
    let called = || assert_eq!(sky.call(&url, CALL), OUTPUT);
    let bare = || {
        let out = Command::new(&program).stdin(Stdio::null()).output().expect("running the program");
        assert_eq!(out.stdout, OUTPUT.as_bytes());
    };
    let [mut one_bare, mut one_call, mut ten_bare, mut ten_calls]: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        one_bare.push(timed(bare));
        one_call.push(timed(called));
        ten_bare.push(timed(|| at_once(&bare)));
        ten_calls.push(timed(|| at_once(&called)));
    }
    heading("island: a call of a cached program, reference: the same program started without any sandbox, to its end");
    columns(&["runs", "way", "least ms", "median ms", "more than bare, ms"]);
    for (runs, bare, calls) in [("1", one_bare, one_call), ("10 at once", ten_bare, ten_calls)] {
        let reference = median(bare.iter().copied());
        for (way, times) in [("bare", &bare), ("call", &calls)] {
            let middle = median(times.iter().copied());
            let more = middle - reference;
            row(&[
                &runs,
                &way,
                &format!("{:.1}", least(times.iter().copied())),
                &format!("{middle:.1}"),
                &format!("{more:.1}"),
            ]);
        }
    }
    println!("\nThe first call, with the fetch and the build, took {first:.0} ms.");
}

fn timed(act: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    act();
    begun.elapsed().as_secs_f64() * 1e3
}

fn at_once(act: &(impl Fn() + Sync)) {
    std::thread::scope(|scope| {
        (0..PARALLEL).for_each(|_| drop(scope.spawn(act)));
    });
}

/// Where the built program is among the layers.
fn program(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    entries.flatten().find_map(|entry| {
        let path = entry.path();
        match entry.file_type().ok()? {
            kind if kind.is_dir() => program(&path),
            kind if kind.is_file() && path.ends_with("home/app/handler") => Some(path),
            _ => None,
        }
    })
}
