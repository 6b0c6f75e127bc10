//! Programs that tests run or put into images: built or looked up once per run, kept under target/.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::platform;

/// The project's directory; on a machine that was sent its parts, the directory with those.
pub fn project() -> PathBuf {
    platform::shipped_parts().unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into())
}

/// The program under test.
pub fn program() -> PathBuf {
    match platform::shipped_parts() {
        Some(parts) => parts.join("faas-jails"),
        None => env!("CARGO_BIN_EXE_faas-jails").into(),
    }
}

/// The probe function's static binary. Go's own cache makes the second build a matter of moments.
pub fn probe() -> &'static [u8] {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    PROBE.get_or_init(|| {
        if let Some(parts) = platform::shipped_parts() {
            return fs::read(parts.join("probe")).expect("reading the probe that came with the tests");
        }
        let directory = project().join("target/functions");
        fs::create_dir_all(&directory).expect("making target/functions");
        // Test processes that run at the same time build one after the other.
        let lock = File::create(directory.join("lock")).expect("making target/functions/lock");
        lock.lock().expect("locking target/functions/lock");
        let binary = directory.join("probe");
        let out = Command::new("go")
            .args(["build", "-trimpath", "-ldflags=-s -w", "-buildvcs=false", "-o"])
            .arg(&binary)
            .arg(".")
            .current_dir(project().join("tests/functions/probe"))
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .output()
            .expect("running go; tools/setup.sh installs it");
        assert!(out.status.success(), "building the probe: {}", String::from_utf8_lossy(&out.stderr));
        fs::read(&binary).expect("reading the probe")
    })
}

/// A stock OpenFaaS program that tools/stock.sh found on this machine.
pub fn stock(name: &str) -> Option<PathBuf> {
    let directory = platform::shipped_parts().unwrap_or_else(|| project().join("target"));
    let path = directory.join("stock").join(name);
    path.exists().then_some(path)
}

/// Whether a program of this name is in PATH.
pub fn installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}
