//! The builder: a changed handler with warm caches, from source to an image in the store.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::report::{columns, heading, least, median, row};
use crate::support::{Daemon, parts};

const ROUNDS: usize = 15;

pub fn run() {
    if !parts::installed("go") {
        println!("(without build: needs go)\n");
        return;
    }
    let daemon = Daemon::with().without_images().table("[builder]\nproxy = \"off\"").prepare();
    let here = daemon.scratch().to_owned();
    let copied = |from: &str, to: &str| {
        let status = Command::new("cp").arg("-R").arg(parts::project().join(from)).arg(here.join(to)).status();
        assert!(status.expect("running cp").success());
    };
    copied("templates", "templates");
    copied("templates/go-http", "host");
    let stack = "functions:\n  f:\n    lang: go-http\n    handler: ./f\n    image: local/f:1\n";
    fs::write(here.join("stack.yml"), stack).expect("writing stack.yml");
    fs::create_dir(here.join("f")).expect("making a directory");
    fs::copy(here.join("host/function/go.mod"), here.join("f/go.mod")).expect("copying go.mod");
    let file = here.join("stack.yml").display().to_string();
    let builder = || {
        let out = daemon.run(&["build", "-f", &file]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(String::from_utf8_lossy(&out.stdout).contains("built local/f:1"), "it was not built anew");
    };
    let host = || {
        let status = Command::new("go")
            .args(["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", "handler", "."])
            .current_dir(here.join("host"))
            .env("CGO_ENABLED", "0")
            .env("GOCACHE", here.join("cache"))
            .stdin(Stdio::null())
            .status();
        assert!(status.expect("running go").success());
    };
    let (mut built, mut compiled) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        change(&here.join("f/handler.go"), round);
        change(&here.join("host/function/handler.go"), round);
        let times = (timed(host), timed(builder));
        // The first fills the caches.
        if round > 0 {
            compiled.push(times.0);
            built.push(times.1);
        }
    }
    heading("build: a changed handler with warm caches, reference: go build of the same program on the host");
    columns(&["way", "least ms", "median ms", "times the reference"]);
    let reference = median(compiled.iter().copied());
    for (way, times) in [("go build", compiled), ("faas-jails build", built)] {
        let middle = median(times.iter().copied());
        let ratio = format!("{:.2}", middle / reference);
        row(&[&way, &format!("{:.0}", least(times.iter().copied())), &format!("{middle:.0}"), &ratio]);
    }
}

fn change(handler: &Path, round: usize) {
    let text = format!(
        "package function\n\nimport (\n\t\"fmt\"\n\t\"net/http\"\n)\n\nfunc Handle(w http.ResponseWriter, r *http.Request) {{ fmt.Fprint(w, {round}) }}\n"
    );
    fs::write(handler, text).expect("writing a handler");
}

fn timed(act: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    act();
    begun.elapsed().as_secs_f64() * 1e3
}
