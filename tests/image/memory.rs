//! What a pull takes of memory: the same for any image.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use faas_jails::image::Digest;
use rand::RngCore;

use crate::server::{Answer, Server};
use crate::support::*;

const MIB: u64 = 1 << 20;

/// The most memory that a process has had, in bytes (`VmHWM` in proc_pid_status(5)). `None` when it has ended.
fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

#[test]
fn a_pull_of_any_size_stays_below_64_mebibytes_of_memory() {
    const NAME: &str = "a_pull_of_any_size_stays_below_64_mebibytes_of_memory";
    if !is_root(NAME) {
        return;
    }
    // Three layers that do not compress, each of them more than may be held at once with the others.
    let noise = |_| {
        let mut bytes = vec![0; 40 << 20];
        rand::rng().fill_bytes(&mut bytes);
        Tar::new().file("noise", bytes).end()
    };
    let sample = Sample { platform: ("", ""), ..Sample::new((0..3).map(noise).collect()) };
    let (blobs, _) = sample.oci_blobs(gzip);
    let mut content: HashMap<String, Vec<u8>> =
        blobs.iter().map(|blob| (format!("/v2/f/blobs/{}", Digest::of(blob)), blob.clone())).collect();
    content.insert("/v2/f/manifests/1".into(), blobs.last().unwrap().clone());
    let server = Server::start(move |request| match content.get(&request.path) {
        Some(body) => Answer::new(200, body.clone()),
        None => Answer::new(404, ""),
    });
    let dir = tempfile::tempdir().unwrap();
    let (config, root) = (dir.path().join("config.toml"), dir.path().join("root"));
    let realm = format!("m{:03}", std::process::id() % 1000);
    fs::write(&config, format!("root = \"{}\"\nrealm = \"{realm}\"\n", root.display())).unwrap();
    let mut pull = Command::new(env!("CARGO_BIN_EXE_faas-jails"));
    pull.arg("--config").arg(&config).args(["image", "pull"]).arg(format!("{}/f:1", server.address));
    let mut child = pull.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    let status = loop {
        most = peak(child.id()).unwrap_or(most);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(status.success());
    let unpacked: u64 = fs::read_dir(root.join("layers"))
        .unwrap()
        .map(|layer| fs::metadata(layer.unwrap().path().join("noise")).unwrap().len())
        .sum();
    assert_eq!(unpacked, 120 * MIB);
    assert!(most > 2 * MIB && most < 64 * MIB, "it had {} KiB", most >> 10);
}
