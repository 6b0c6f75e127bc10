//! Bases from small made-up archives; init as a whole is in the acceptance suite.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lzma_rust2::{XzOptions, XzWriter};
use tar::EntryType;

use super::{Origin, Place, Settings, Step};
use crate::config::Config;
use crate::fault::Kind;
use crate::image::{self, Digest, Silent};
use crate::platform::LOADERS;
use crate::setup::{Item, State};

/// One entry of a tar that belongs to whoever runs the test; names are taken as they are.
fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

/// What every base has, as FreeBSD's is written.
fn system() -> tar::Builder<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for directory in ["./", "./lib/", "./usr/", "./usr/lib/"] {
        add(&mut tar, directory, EntryType::Directory, 0o700, "", b"");
    }
    add(&mut tar, "./lib/libc.so.7", EntryType::Regular, 0o444, "", &[b'c'; 3000]);
    add(&mut tar, LOADERS[0], EntryType::Regular, 0o555, "", b"loader");
    add(&mut tar, "./usr/bin/su", EntryType::Regular, 0o4555, "", b"su");
    add(&mut tar, "./usr/lib/libc.so", EntryType::Symlink, 0o777, "../../lib/libc.so.7", b"");
    tar
}

fn with(path: &str, kind: EntryType, link: &str) -> Vec<u8> {
    let mut tar = system();
    add(&mut tar, path, kind, 0o755, link, b"");
    tar.into_inner().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn builder(&self) -> PathBuf {
        self.dir.path().join("state/builder")
    }

    /// A file with these bytes, as it is configured.
    fn archive(&self, bytes: &[u8]) -> Settings {
        let path = self.dir.path().join("archive");
        fs::write(&path, bytes).unwrap();
        Settings { from: Origin::File(path), sum: Digest::of(bytes) }
    }

    fn step(&self, base: Option<Settings>) -> Step {
        let mut config = Config { root: self.dir.path().join("state"), ..Config::default() };
        config.builder.base = base;
        Step::new(&config, Box::new(Silent))
    }

    fn refused(&self, settings: &Settings) -> String {
        let images = image::Settings::new(crate::platform::image_target());
        let fault = Place::below(&self.builder()).make(settings, &images, &Silent).unwrap_err();
        assert_eq!(fault.kind(), Kind::Invalid, "{fault}");
        assert_eq!(left(&self.builder()), Vec::<String>::new(), "after: {fault}");
        fault.to_string()
    }
}

fn left(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn word(step: &Step) -> &'static str {
    match step.look().unwrap() {
        State::Ready(_) => "ready",
        State::Unneeded(_) => "unneeded",
        State::Missing { .. } => "missing",
    }
}

#[test]
fn a_base_is_made_once_made_anew_for_another_sum_and_taken_away() {
    let bench = Bench::new();
    assert_eq!(word(&bench.step(None)), "unneeded");
    let step = bench.step(Some(bench.archive(&xz(&system().into_inner().unwrap()))));
    assert_eq!(word(&step), "missing");
    assert!(!bench.builder().exists(), "a look made something");
    assert!(step.make().unwrap());
    assert_eq!(word(&step), "ready");
    let root = bench.builder().join("base/root");
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(fs::read(root.join("usr/lib/libc.so")).unwrap(), [b'c'; 3000]);
    assert_eq!((mode(""), mode("usr/bin/su")), (0o755, 0o555));

    // What a killed run left is no hindrance.
    for dir in [".base.new/root/half", ".base.old/root"] {
        fs::create_dir_all(bench.builder().join(dir)).unwrap();
    }
    fs::write(bench.builder().join(".base.archive"), "half").unwrap();
    let second = bench.step(Some(bench.archive(&gzip(&with("second", EntryType::Directory, "")))));
    assert_eq!(word(&second), "missing");
    assert!(second.make().unwrap());
    assert_eq!((word(&second), word(&step)), ("ready", "missing"));
    assert!(root.join("second").is_dir());
    assert_eq!(left(&bench.builder()), ["base"]);

    // One that fails leaves what was there.
    let mut wrong = bench.archive(b"no tar at all");
    assert!(bench.step(Some(wrong.clone())).make().is_err());
    wrong.sum = Digest::of("else");
    assert!(bench.step(Some(wrong)).make().is_err());
    assert_eq!(word(&second), "ready");
    assert_eq!(left(&bench.builder()), ["base"]);

    fs::remove_file(root.join(LOADERS[0])).unwrap();
    assert_eq!(word(&second), "missing");
    assert!(bench.step(None).unmake().unwrap().is_some());
    assert_eq!(left(&bench.builder()), Vec::<String>::new());
    assert_eq!(bench.step(None).unmake().unwrap(), None);
}

#[test]
fn what_somebody_else_put_there_stays() {
    let bench = Bench::new();
    let theirs = bench.builder().join("base/root/file");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::write(&theirs, "mine").unwrap();
    let step = bench.step(Some(bench.archive(&system().into_inner().unwrap())));
    assert_eq!(word(&step), "missing");
    let fault = step.make().unwrap_err();
    assert!(fault.kind() == Kind::Busy && fault.to_string().contains("in the way"), "{fault}");
    assert_eq!(step.unmake().unwrap(), None);
    assert_eq!(fs::read_to_string(theirs).unwrap(), "mine");
}

#[test]
fn an_archive_may_be_compressed_by_gzip_zstd_xz_or_not_at_all() {
    let tar = system().into_inner().unwrap();
    for bytes in [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 1).unwrap(), xz(&tar)] {
        let bench = Bench::new();
        let step = bench.step(Some(bench.archive(&bytes)));
        step.make().unwrap();
        assert_eq!(word(&step), "ready");
    }
}

#[test]
fn an_archive_that_is_not_what_it_should_be_is_refused_in_a_sentence() {
    let bench = Bench::new();
    let tar = system().into_inner().unwrap();
    let mut wrong = bench.archive(&tar);
    wrong.sum = Digest::of("else");
    assert!(bench.refused(&wrong).contains(&format!(
        "its SHA-256 is {}, not {}",
        Digest::of(&tar).hex(),
        wrong.sum.hex()
    )));
    for whole in [tar.clone(), gzip(&tar), zstd::encode_all(&tar[..], 1).unwrap(), xz(&tar)] {
        let told = bench.refused(&bench.archive(&whole[..whole.len() * 2 / 5]));
        assert!(told.contains("cut off") || told.contains("incomplete"), "{told}");
    }
    for (bytes, words) in [
        (with("../escaped", EntryType::Directory, ""), "escaped"),
        (with("usr/lib/evil", EntryType::Link, "../../../../etc/passwd"), "evil"),
        (
            {
                let mut tar = system();
                add(&mut tar, "out", EntryType::Symlink, 0o777, "/tmp", b"");
                add(&mut tar, "out/file", EntryType::Regular, 0o644, "", b"x");
                tar.into_inner().unwrap()
            },
            "symbolic link",
        ),
        (with("usr/lib64", EntryType::Symlink, "/"), "leads out of it"),
        (with("usr/lib64", EntryType::Symlink, "../../.."), "leads out of it"),
        (with("usr/libexec", EntryType::Symlink, "/nowhere/yet"), "leads out of it"),
        (b"this is no tar".repeat(100), "no tar"),
        (tar::Builder::new(Vec::new()).into_inner().unwrap(), "no system of this host's sort: it has no lib"),
    ] {
        let told = bench.refused(&bench.archive(&bytes));
        assert!(told.contains(words) && !told.contains('\n'), "{words}: {told}");
        assert!(told.starts_with(&bench.dir.path().join("archive").display().to_string()), "{told}");
    }
    let mut bare = tar::Builder::new(Vec::new());
    add(&mut bare, "lib/", EntryType::Directory, 0o755, "", b"");
    let told = bench.refused(&bench.archive(&bare.into_inner().unwrap()));
    assert!(told.contains(&format!("it has no {}", LOADERS[0])), "{told}");
    assert!(!bench.dir.path().join("escaped").exists());
}

#[test]
fn an_xz_archive_whose_dictionary_is_too_large_is_refused_before_memory_is_taken() {
    let bench = Bench::new();
    let mut bytes = xz(&system().into_inner().unwrap());
    // File format of xz, section 3.1: behind the stream's 12 bytes: size, flags, filter id, its properties' size, the
    // dictionary's size (37 is 1 GiB), padding, and a CRC32 at the end.
    let end = (usize::from(bytes[12]) + 1) * 4 + 12;
    assert_eq!((bytes[14], bytes[15]), (0x21, 1));
    bytes[16] = 37;
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..end - 4]);
    bytes[end - 4..end].copy_from_slice(&crc.sum().to_le_bytes());
    let told = bench.refused(&bench.archive(&bytes));
    assert!(told.contains("dictionary needs more than 80 MiB"), "{told}");
}

#[test]
fn the_settings_say_where_from_and_what_it_must_be() {
    let read = |lines: &str| {
        Config::read(&format!("[builder.base]\n{lines}"), |_| None)
            .map(|config| config.builder.base.unwrap())
            .map_err(|fault| fault.to_string())
    };
    let hex = "AB".repeat(32);
    let sum: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
    for (from, expected) in [
        ("https://mirror.example/base.txz", Origin::Url("https://mirror.example/base.txz".into())),
        ("/var/base.txz", Origin::File("/var/base.txz".into())),
    ] {
        let settings = read(&format!("from = \"{from}\"\nsum = \"{hex}\"")).unwrap();
        assert_eq!(settings, Settings { from: expected, sum: sum.clone() });
    }
    let image = read(&format!("from = \"image:registry.example/base@{sum}\"")).unwrap();
    assert!(matches!(&image.from, Origin::Image(name) if name.registry() == "registry.example"));
    assert_eq!(image.sum, sum);
    for (lines, words) in [
        ("from = \"/base.txz\"", "sum is missing"),
        ("from = \"/base.txz\"\nsum = \"12\"", "is no sha256 digest"),
        ("from = \"base.txz\"\nsum = \"12\"", "is none of these"),
        ("from = \"ftp://mirror.example/base.txz\"", "is none of these"),
        ("from = \"image:registry.example/base:14\"", "needs a digest"),
        (&format!("from = \"image:registry.example/base@{sum}\"\nsum = \"{hex}\""), "in its name"),
    ] {
        let told = read(lines).unwrap_err();
        assert!(told.contains(words), "{lines}: {told}");
    }
}
