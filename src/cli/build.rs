//! `faas-jails build`: the functions of a stack file, into the local store.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::build::stack::{self, Wanted};
use crate::build::{Builder, Progress};
use crate::config::Config;
use crate::fault::{Fault, Result};
use crate::image::Platform;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The stack file
    #[arg(short = 'f', long = "yaml", default_value = "stack.yml", value_name = "FILE")]
    file: PathBuf,
    /// Only functions whose names fit this pattern, with * and ?
    #[arg(long, default_value = "*", value_name = "PATTERN")]
    filter: String,
    /// How many functions are built at once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// What the images are for, such as freebsd/amd64 [default: this host]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// A build argument for all of them; wins over the file's
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    args: Vec<String>,
}

pub fn run(mut config: Config, arguments: &Arguments) -> Result<()> {
    let mut wanted = stack::read(&arguments.file, &|name| stack::fits(&arguments.filter, name))?;
    if wanted.is_empty() {
        let file = arguments.file.display();
        return Err(Fault::not_found(format!("no function of {file} fits {}", arguments.filter.escape_debug())));
    }
    for one in &mut wanted {
        if arguments.platform.is_some() {
            one.request.platform = arguments.platform.clone();
        }
        for pair in &arguments.args {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| Fault::invalid(format!("build argument {} has no =", pair.escape_debug())))?;
            one.request.args.insert(name.to_owned(), value.to_owned());
        }
    }
    config.builder.parallel = arguments.parallel.into();
    let (platform, images) = super::open(&config)?;
    let builder = Builder::open(&config, platform, images)?;
    let failed = build_all(&builder, &wanted, arguments.parallel.into());
    match failed {
        0 => Ok(()),
        failed => Err(Fault::invalid(format!("{failed} of {} functions are not built", wanted.len()))),
    }
}

/// Builds all, some at once; says how many failed.
fn build_all(builder: &Builder, wanted: &[Wanted], parallel: usize) -> usize {
    let screen = Screen::new(wanted);
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..parallel.min(wanted.len()) {
            scope.spawn(|| {
                while let Some(one) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = screen.row(&one.name);
                    let started = Instant::now();
                    match builder.build(&one.request, &one.image, &row) {
                        Ok(built) => {
                            let how = if built.cached { "unchanged" } else { "built" };
                            let seconds = started.elapsed().as_secs_f64();
                            row.end(&format!("{how} {} {} in {seconds:.1}s", one.image, built.image.manifest));
                        }
                        Err(fault) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            row.end(&format!("{fault}"));
                        }
                    }
                }
            });
        }
    });
    failed.into_inner()
}

/// A spinning line for each function on a terminal; elsewhere a line for each step.
struct Screen {
    bars: Option<MultiProgress>,
    width: usize,
    /// Lines of several functions must not mix.
    turn: Mutex<()>,
}

impl Screen {
    fn new(wanted: &[Wanted]) -> Self {
        let width = wanted.iter().map(|one| one.name.len()).max().unwrap_or(0);
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, width, turn: Mutex::new(()) }
    }

    fn row(&self, name: &str) -> Row<'_> {
        let bar = self.bars.as_ref().map(|bars| {
            let style = ProgressStyle::with_template("{prefix} {spinner} {msg}").expect("a valid template");
            let bar = bars.add(ProgressBar::new_spinner().with_style(style));
            bar.set_prefix(format!("{name:width$}", width = self.width));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Row { screen: self, name: name.to_owned(), bar }
    }
}

/// One function's place on the screen.
struct Row<'a> {
    screen: &'a Screen,
    name: String,
    bar: Option<ProgressBar>,
}

impl Row<'_> {
    fn lines(&self, text: &str) {
        let _turn = self.screen.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for line in text.trim_end().lines() {
            let line = format!("{:width$} | {line}", self.name, width = self.screen.width);
            match &self.screen.bars {
                Some(bars) => drop(bars.println(line)),
                None => println!("{line}"),
            }
        }
    }

    fn end(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.lines(text);
    }
}

impl Progress for Row<'_> {
    fn step(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => self.lines(what),
        }
    }

    /// What the compiler says is in the failure, and then on the screen once.
    fn output(&self, _: &str) {}
}
