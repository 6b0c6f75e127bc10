//! FreeBSD under the tests: how a daemon is configured, and where the kernel shows what is there of it.
//!
//! tools/freebsd-test.sh puts what cannot be built there into `FAAS_JAILS_TEST_PARTS`.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::dataset::{self, Dataset};
use super::image::Layer;
use super::leaks::Traces;

/// Calls of the probe's /syscall that must fail even for root in a sandbox.
pub const REFUSED_TO_ROOT: &[&str] =
    &["mount", "settime", "sethostname", "mknod", "jail", "kldload", "bpf", "rawsocket"];

/// What this machine lacks to run replicas.
pub fn lacks() -> Option<&'static str> {
    match (super::is_root(), env::var_os(dataset::PARENT)) {
        (false, _) => Some("needs root"),
        (_, None) => Some("needs a ZFS dataset in FAAS_JAILS_TEST_DATASET; tools/freebsd-test.sh makes one"),
        _ => None,
    }
}

/// Whether pf is enabled and calls this program's anchors.
pub fn filters_packets() -> bool {
    Path::new("/dev/pf").exists()
        && told("pfctl", &["-s", "info"]).contains("Status: Enabled")
        && told("pfctl", &["-q", "-s", "rules"]).contains("anchor \"faas-jails/*\"")
}

/// What the kernel shows of limits on input and output in this realm.
pub fn rates(realm: &str) -> String {
    let rules =
        lines(&told("rctl", &[]), |line| line.starts_with(&format!("jail:{realm}_")) && line.contains(":throttle="));
    rules.into_iter().collect::<Vec<_>>().join("\n")
}

/// What this platform needs beside the state directory: a dataset.
pub struct Ground(Option<Dataset>);

impl Ground {
    /// Makes it, unless it is given.
    pub fn make(realm: &str, dataset: Option<&str>) -> Self {
        Self(Dataset::for_daemon(realm, dataset))
    }

    /// The configuration's lines: first those above all tables, then those of `[network]`.
    pub fn settings(&self) -> (String, &'static str) {
        ("storage = \"zfs\"\n".to_owned(), "mode = \"alias\"")
    }

    /// How many layers there are, if they are datasets.
    pub fn layers(&self) -> Option<usize> {
        self.0.as_ref().map(Dataset::layers)
    }

    /// The configuration's own tables.
    pub fn tables(&self) -> String {
        self.0.as_ref().map_or_else(String::new, Dataset::table)
    }
}

/// FreeBSD has no signal for the end of a parent that lasts over exec; the runner ends what a killed run left.
pub fn ends_with_us(_command: &mut Command) {}

/// Bytes of memory that a process occupies.
pub fn memory(pid: u32) -> u64 {
    told("ps", &["-o", "rss=", "-p", &pid.to_string()]).trim().parse::<u64>().expect("a number") << 10
}

/// How many files a process has open.
pub fn open_files(pid: u32) -> usize {
    // Working directory, root and text come first, with words for numbers.
    let is_number = |line: &&str| line.split_whitespace().nth(2).is_some_and(|fd| fd.parse::<u32>().is_ok());
    told("procstat", &["-f", &pid.to_string()]).lines().filter(is_number).count()
}

/// Where the programs are that images are made from: no compiler is needed on the machine under test.
pub fn shipped_parts() -> Option<PathBuf> {
    env::var_os("FAAS_JAILS_TEST_PARTS").map(PathBuf::from)
}

/// Adds programs of the base system, with the libraries and the linker that they name.
pub fn add_tools(layer: Layer) -> Layer {
    const PROGRAMS: [&str; 6] = ["/bin/sh", "/bin/cat", "/bin/echo", "/bin/sleep", "/usr/bin/env", "/usr/bin/false"];
    let listed = told("ldd", &[&["-f", "%p\n"][..], &PROGRAMS].concat());
    let libraries = listed.lines().filter(|line| line.starts_with('/') && !line.ends_with(':'));
    let files: BTreeSet<&str> = libraries.chain(PROGRAMS).chain(["/libexec/ld-elf.so.1"]).collect();
    let directories = ["lib", "libexec", "usr/lib"].into_iter();
    let layer = directories.fold(layer, |layer, name| layer.directory(name, 0o755));
    files.into_iter().fold(layer, |layer, file| {
        layer.file(file.trim_start_matches('/'), 0o755, &std::fs::read(file).expect("reading a program"))
    })
}

/// Looks for everything of this realm, whose state directory is `root`.
pub fn look(realm: &str, root: &Path, traces: &mut Traces) {
    let prefix = format!("{realm}_");
    traces.groups = words(&told("jls", &["name"]), |name| name.starts_with(&prefix));
    let processes = told("ps", &["-ax", "-o", "jail=", "-o", "pid=", "-o", "comm="]);
    let ours = processes.lines().map(str::trim_start).filter(|line| line.starts_with(&prefix));
    for (jail, process) in ours.filter_map(|line| line.split_once(' ')) {
        if !process.contains("<defunct>") {
            traces.populated.insert(jail.to_owned());
            traces.processes.insert(process.trim().to_owned());
        }
    }
    traces.interfaces = words(&told("ifconfig", &["-l"]), |name| name.starts_with(realm));
    for interface in &traces.interfaces {
        traces.addresses.extend(lines(&told("ifconfig", &[interface]), |line| line.trim_start().starts_with("inet")));
    }
    let root = root.display().to_string();
    traces.mounts = lines(&told("mount", &["-p"]), |line| line.contains(&root) || line.contains(&prefix));
    traces.rules = lines(&told("rctl", &[]), |line| line.starts_with(&format!("jail:{prefix}")));
    traces.datasets = dataset::roots(realm);
    if Path::new("/dev/pf").exists() {
        let anchor = format!("faas-jails/{realm}");
        traces.firewall = lines(&told("pfctl", &["-q", "-a", &anchor, "-s", "rules"]), |line| !line.is_empty());
    }
}

/// How many jails of this realm are removed, and kept by a socket or file that refers to them.
pub fn dying(realm: &str) -> usize {
    let jails = told("jls", &["-d", "dying", "name"]);
    jails.lines().filter(|line| line.starts_with(&format!("true {realm}_"))).count()
}

/// What a command prints; nothing where it fails.
fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("running {program}: {e}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn words(text: &str, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    text.split_whitespace().filter(|word| wanted(word)).map(str::to_owned).collect()
}

fn lines(text: &str, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    text.lines().filter(|line| wanted(line)).map(str::to_owned).collect()
}
