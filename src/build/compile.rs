//! The jobs of a build: Go in a sandbox without network, user or host. See [`super`] for what they see.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cache::Owned;
use super::recipe::Recipe;
use super::toolchain::{Go, INSIDE};
use super::workspace::{Workspace, writable};
use super::{Builder, Log, Settings};
use crate::fault::{Context, Fault, Result};
use crate::image::Platform;
use crate::job::{End, Job, Outcome};
use crate::sandbox::{Access, Mount};

/// Packages of the standard library that functions have in common; what they import comes with them.
const COMMON: [&str; 4] = ["net/http", "encoding/json", "os/signal", "testing"];
/// How much of a compiler's complaints is in a failure; all of it is in the log.
const QUOTED: usize = 4000;
/// What Go prints when a process that it started was killed: by the limit on memory, or by that on processes on a kernel
/// that cannot deny them.
const KILLED: &str = "signal: killed";
/// What Go and its runtime print when there is no room in memory.
const NO_MEMORY: [&str; 2] = ["cannot allocate memory", "runtime: out of memory"];
/// The same of processes and threads: fork's EAGAIN, and the runtime's words for clone's.
const NO_PROCESS: [&str; 2] = ["resource temporarily unavailable", "failed to create new OS thread"];
/// The same of a quota on the disk.
const NO_DISK: [&str; 3] = ["no space left on device", "disk quota exceeded", "disc quota exceeded"];

/// What the jobs of one build have in common.
pub(super) struct Compilation<'a> {
    pub go: &'a Go,
    pub platform: &'a Platform,
    pub owned: &'a Owned,
    pub workspace: &'a Workspace,
    pub recipe: &'a Recipe,
    pub modules: &'a Path,
    pub args: &'a BTreeMap<String, String>,
    pub secrets: Option<PathBuf>,
}

impl Builder {
    /// Compiles the recipe's main package; gives the path of the program.
    pub(super) fn compile(&self, build: &Compilation<'_>, log: &Log<'_>) -> Result<PathBuf> {
        let work = build.workspace.writable("compile")?;
        let words = ["-buildvcs=false", "-ldflags=-s -w", "-o", "/work/handler", build.recipe.package.as_str()];
        let argv = self.command("build", &words);
        let outcome = self.go(build, "compile", argv, &join("/src", &build.recipe.module), &work, log)?;
        self.check(&outcome, "it does not compile")?;
        Ok(work.join("handler"))
    }

    /// Runs the handler's own tests, as stock templates do.
    pub(super) fn test(&self, build: &Compilation<'_>, tests: &str, log: &Log<'_>) -> Result<()> {
        let work = build.workspace.writable("test")?;
        let argv = self.command("test", &["./..."]);
        let outcome = self.go(build, "test", argv, &join("/src", tests), &work, log)?;
        self.check(&outcome, "its tests fail")
    }

    /// Fills the shared cache for this Go and target, if that has not been done.
    pub(super) fn prepare_standard(&self, go: &Go, platform: &Platform, key: &str, log: &Log<'_>) -> Result<()> {
        let _turn = self.standard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.caches.standard(key).is_some() {
            return Ok(());
        }
        log.step(&format!("compiling Go {}'s standard library for {platform}, once", go.version));
        let workspace = Workspace::make(&self.dir.join("work"))?;
        let (cache, work) = (workspace.writable("cache")?, workspace.writable("work")?);
        quiet(&work)?;
        let argv = self.command("build", &COMMON);
        let mut job = Job::new(self.jobs.name("std")?, argv, self.settings.limits());
        job.mounts = go.mounts.clone();
        job.mounts.push(shown(&work, "/work", Access::Write));
        job.mounts.push(shown(&cache, "/cache/build", Access::Write));
        job.env = environment(platform);
        job.workdir = "/work".into();
        let outcome = self.jobs.run(job, None)?;
        self.check(&outcome, "the standard library does not compile")?;
        self.caches.keep_standard(key, &cache)
    }

    fn command(&self, verb: &str, words: &[&str]) -> Vec<String> {
        let processes = format!("-p={}", self.settings.processes());
        let all = ["go", verb, "-trimpath", &processes];
        all.iter().chain(words).map(|word| (*word).to_owned()).collect()
    }

    fn go(
        &self,
        build: &Compilation<'_>,
        kind: &str,
        argv: Vec<String>,
        workdir: &str,
        work: &Path,
        log: &Log<'_>,
    ) -> Result<Outcome> {
        quiet(work)?;
        let mut job = Job::new(self.jobs.name(kind)?, argv, self.settings.limits());
        job.mounts = build.go.mounts.clone();
        job.mounts.push(shown(&build.workspace.path("src"), "/src", Access::Read));
        job.mounts.push(shown(build.modules, "/modules", Access::Read));
        job.mounts.push(shown(work, "/work", Access::Write));
        job.mounts.push(shown(&build.owned.compiled, "/cache/build", Access::Write));
        job.mounts.push(shown(&build.owned.modules, "/cache/mod", Access::Write));
        if let Some(secrets) = &build.secrets {
            job.mounts.push(shown(secrets, "/run/secrets", Access::Read));
        }
        job.env = environment(build.platform);
        job.env.extend(build.args.clone());
        job.workdir = workdir.into();
        self.jobs.run(job, Some(&|_, bytes| log.output(&String::from_utf8_lossy(bytes))))
    }

    /// A failure that quotes what was printed, unless it went well.
    fn check(&self, outcome: &Outcome, what: &str) -> Result<()> {
        if outcome.succeeded() {
            return Ok(());
        }
        let mut all = outcome.stderr.text();
        all.push_str(&outcome.stdout.text());
        let said: String = all.trim().chars().take(QUOTED).collect();
        let end = match outcome.end {
            // The compiler's own words say enough, but not of limits that only a child of it met.
            End::Exited(crate::sandbox::Exit::Code(code @ 1..=2)) if !said.is_empty() => match self.met(&all) {
                Some(limit) => format!(" (the build met its limit, {limit})"),
                None if code == 1 => String::new(),
                None => format!(" (the build {})", self.settings.limits().describe(outcome.end)),
            },
            end => format!(" (the build {})", self.settings.limits().describe(end)),
        };
        Err(Fault::invalid(format!("{what}{end}:\n{said}")))
    }

    /// The limit that was met by what printed this, as far as that shows.
    fn met(&self, said: &str) -> Option<String> {
        let any = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
        let settings = &self.settings;
        if any(&NO_PROCESS) {
            Some(format!("builder.pids = {}", settings.pids))
        } else if any(&NO_MEMORY) {
            Some(format!("builder.memory = {}", settings.memory))
        } else if any(&[KILLED]) {
            let Settings { memory, pids, .. } = settings;
            Some(format!("builder.memory = {memory}, or builder.pids = {pids} where forks cannot be denied"))
        } else if any(&NO_DISK) {
            Some(format!("builder.disk = {}", settings.disk))
        } else {
            None
        }
    }
}

fn join(dir: &str, name: &str) -> String {
    if name.is_empty() { dir.to_owned() } else { format!("{dir}/{name}") }
}

/// Tells Go, whose home is `work`, to count nothing: that is for its users to see, and takes a process of its own
/// (golang.org/x/telemetry, Mode).
fn quiet(work: &Path) -> Result<()> {
    let mut dir = work.to_owned();
    for name in [".config", "go", "telemetry"] {
        dir.push(name);
        writable(&dir)?;
    }
    let mode = dir.join("mode");
    std::fs::write(&mode, "off").context(|| format!("cannot write {}", mode.display()))
}

fn shown(source: &Path, target: &str, access: Access) -> Mount {
    Mount { source: source.to_owned(), target: target.into(), access }
}

/// Go as it is wherever it builds: nothing of the host, nothing from outside, nothing that changes between builds.
fn environment(platform: &Platform) -> BTreeMap<String, String> {
    [
        ("PATH", format!("{INSIDE}/bin").as_str()),
        ("GOROOT", INSIDE),
        ("HOME", "/work"),
        ("TMPDIR", "/work"),
        ("GOPATH", "/work/gopath"),
        ("GOCACHE", "/cache/build"),
        ("GOMODCACHE", "/cache/mod"),
        ("GOPROXY", "file:///modules"),
        ("GOSUMDB", "off"),
        ("GOENV", "off"),
        ("GOTOOLCHAIN", "local"),
        ("GO111MODULE", "on"),
        ("CGO_ENABLED", "0"),
        ("GOOS", &platform.os),
        ("GOARCH", &platform.architecture),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}
