//! How long an image takes from archive to ready, against tar(1) on the same layers.
//!
//! ```text
//! cargo bench --bench image            (root; about 500 MB in the temporary directory)
//! ```
//!
//! The image is made here: three gzip layers, about 170 MB and 8,000 files unpacked, sizes as in a language
//! runtime's image. The reference is `tar xzf` of the three layers at once, into three directories, and a
//! sync of that filesystem, because a layer is only ready when it is on disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use faas_jails::image::{Digest, Settings, Silent, Source, Store, Target};
use faas_jails::platform::linux::overlay::OverlayStorage;
use rand::{Rng, SeedableRng};
use serde_json::json;

const ROUNDS: usize = 5;

/// One layer: `files` files, about `bytes` in all, half noise and half text so that gzip gets to a third or so.
fn layer(seed: u64, files: usize, bytes: usize) -> Vec<u8> {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut tar = tar::Builder::new(Vec::new());
    let mut append = |path: String, kind, mode, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, path, data).unwrap();
    };
    let average = bytes / files;
    for at in 0..files {
        if at % 20 == 0 {
            append(format!("usr/lib/l{seed}/d{}", at / 20), tar::EntryType::Directory, 0o755, b"");
        }
        // Many small files, few large ones.
        let size = match at % 50 {
            0 => average * 30,
            _ => random.random_range(0..average * 4 / 5),
        };
        let mut data = vec![0; size];
        for chunk in data.chunks_mut(64) {
            let half = chunk.len() / 3;
            random.fill(&mut chunk[..half]);
            chunk[half..].fill(b'a' + random.random_range(0..26));
        }
        append(format!("usr/lib/l{seed}/d{}/f{at}", at / 20), tar::EntryType::Regular, 0o644, &data);
    }
    tar.into_inner().unwrap()
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

/// Writes the layers, each as a file, and an OCI archive of them.
fn prepare(dir: &Path) {
    let layers = [layer(1, 3000, 90 << 20), layer(2, 4000, 60 << 20), layer(3, 1000, 20 << 20)];
    let packed: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({"os": "linux", "architecture": std::env::consts::ARCH, "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": ids}})
    .to_string()
    .into_bytes();
    let describe = |bytes: &[u8]| json!({"mediaType": "application/octet-stream", "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let list: Vec<_> = packed.iter().map(|layer| describe(layer)).collect();
    let manifest = json!({"schemaVersion": 2, "config": describe(&config), "layers": list}).to_string().into_bytes();
    let mut listed = describe(&manifest);
    listed["annotations"] = json!({"org.opencontainers.image.ref.name": "r.example/bench:1"});
    let index = json!({"schemaVersion": 2, "manifests": [listed]}).to_string().into_bytes();
    let mut tar = tar::Builder::new(File::create(dir.join("image.tar")).unwrap());
    let mut append = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    for (at, layer) in packed.iter().enumerate() {
        fs::write(dir.join(format!("{at}.tar.gz")), layer).unwrap();
        append(format!("blobs/sha256/{}", Digest::of(layer).hex()), layer);
    }
    append(format!("blobs/sha256/{}", Digest::of(&config).hex()), &config);
    append(format!("blobs/sha256/{}", Digest::of(&manifest).hex()), &manifest);
    append("index.json".to_owned(), &index);
    tar.into_inner().unwrap();
}

fn tar_at_once(dir: &Path) -> (Duration, Duration) {
    let out = dir.join("out");
    (0..3).for_each(|at| fs::create_dir_all(out.join(at.to_string())).unwrap());
    let unpack = |at: usize| {
        let mut command = Command::new("tar");
        command.arg("xzf").arg(dir.join(format!("{at}.tar.gz"))).arg("-C").arg(out.join(at.to_string()));
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let took = measure(|| {
        let children: Vec<_> = (0..3).map(unpack).collect();
        children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
        rustix::fs::syncfs(File::open(&out).unwrap()).unwrap();
    });
    fs::remove_dir_all(out).unwrap();
    took
}

fn load(dir: &Path, parallel: usize) -> (Duration, Duration) {
    let out = dir.join("out");
    let storage = OverlayStorage::new(out.join("storage"), "fjb".parse().unwrap()).unwrap();
    let settings = Settings { parallel, ..Settings::new(Target::linux(std::env::consts::ARCH)) };
    let store = Store::open(&out, Arc::new(storage), settings).unwrap();
    let took = measure(|| drop(store.load(Source::path(&dir.join("image.tar")), None, &Silent).unwrap()));
    fs::remove_dir_all(out).unwrap();
    took
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Processor time of this process and of its children that have ended (proc(5), stat: fields 14 to 17, in
/// hundredths of a second). It says more than the time on the clock where the machine is shared.
fn processor() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    Duration::from_millis(10 * fields.skip(11).take(4).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>())
}

/// What `run` costs: time on the clock, and processor time.
fn measure(run: impl FnOnce()) -> (Duration, Duration) {
    let (before, started) = (processor(), Instant::now());
    run();
    (started.elapsed(), processor() - before)
}

fn main() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: this benchmark needs root, which alone may set owners and overlay marks");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let (mut tar, mut own, mut single) = (Vec::new(), Vec::new(), Vec::new());
    // One after the other, round by round, so that all meet the same neighbours.
    for _ in 0..ROUNDS {
        tar.push(tar_at_once(dir.path()));
        own.push(load(dir.path(), 4));
        single.push(load(dir.path(), 1));
    }
    let medians = |runs: Vec<(Duration, Duration)>| {
        let (clock, processor): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
        (median(clock), median(processor))
    };
    let tar = medians(tar);
    println!("                                      clock ms  ratio   processor ms  ratio");
    println!("tar xzf, three layers at once, synced {:9.0}        {:13.0}", tar.0, tar.1);
    for (what, runs) in [("several layers at once", own), ("one layer at a time", single)] {
        let (clock, processor) = medians(runs);
        let ratios = (clock / tar.0, processor / tar.1);
        println!("load to ready, {what:22} {clock:9.0} {:6.2} {processor:14.0} {:6.2}", ratios.0, ratios.1);
    }
}
