//! Entries of every kind, with names that point at each other, unpacked into a directory that lies beside
//! another: whatever is in the layer, the other one stays as it was. Needs root (owners, overlay marks).
#![no_main]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use arbitrary::Arbitrary;
use faas_jails::image::unpack::{Expected, UnpackLimits, unpack};
use faas_jails::image::{Digest, Layer};
use faas_jails::storage::{Staging, Whiteouts};
use libfuzzer_sys::fuzz_target;

/// Names from a small set, so that entries meet: links, whiteouts of links, files below links.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum Part {
    A,
    B,
    Up,
    Here,
    WhiteA,
    WhiteB,
    Opaque,
    WhiteUp,
    Victim,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    File,
    Directory,
    Symlink(Vec<Part>, bool),
    Hardlink(Vec<Part>),
    Device,
}

#[derive(Arbitrary, Debug)]
struct Entry {
    path: Vec<Part>,
    absolute: bool,
    kind: Kind,
    mode: u16,
}

#[derive(Arbitrary, Debug)]
struct Input {
    below: Vec<Entry>,
    above: Vec<Entry>,
    overlay: bool,
}

fn path(parts: &[Part], absolute: bool) -> String {
    let names = parts.iter().take(6).map(|part| match part {
        Part::A => "a",
        Part::B => "b",
        Part::Up => "..",
        Part::Here => ".",
        Part::WhiteA => ".wh.a",
        Part::WhiteB => ".wh.b",
        Part::Opaque => ".wh..wh..opq",
        Part::WhiteUp => ".wh...",
        Part::Victim => "victim",
    });
    let joined = names.collect::<Vec<_>>().join("/");
    if absolute { format!("/{joined}") } else { joined }
}

fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries.iter().take(20) {
        let mut header = tar::Header::new_ustar();
        let name = path(&entry.path, entry.absolute);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        let (kind, link) = match &entry.kind {
            Kind::File => (b'0', String::new()),
            Kind::Directory => (b'5', String::new()),
            Kind::Symlink(target, absolute) => (b'2', path(target, *absolute)),
            Kind::Hardlink(target) => (b'1', path(target, false)),
            Kind::Device => (b'3', String::new()),
        };
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.as_mut_bytes()[156] = kind;
        header.set_mode(entry.mode.into());
        header.set_uid(1);
        header.set_gid(1);
        header.set_mtime(1);
        header.set_size(0);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn look(at: &Path) -> Vec<(u32, u32, i64, u64, Vec<u8>)> {
    let seen = |path: &Path| {
        let meta = fs::symlink_metadata(path).expect("it is there");
        let content = if meta.is_file() { fs::read(path).expect("it can be read") } else { Vec::new() };
        (meta.mode(), meta.uid(), meta.mtime(), meta.nlink(), content)
    };
    let inner = fs::read_dir(at).expect("it can be listed").count();
    assert_eq!(inner, 2);
    [at.to_owned(), at.join("a"), at.join("b")].iter().map(|path| seen(path)).collect()
}

fuzz_target!(|input: Input| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // `victim` lies where `..` and links lead to.
    let victim = dir.path().join("victim");
    fs::create_dir(&victim).expect("a directory");
    fs::write(victim.join("a"), "untouched").expect("a file");
    fs::create_dir(victim.join("b")).expect("a directory");
    let before = look(&victim);
    let root = dir.path().join("root");
    fs::create_dir(&root).expect("a directory");
    let whiteouts = if input.overlay { Whiteouts::Overlay } else { Whiteouts::Apply };
    for entries in [&input.below, &input.above] {
        let bytes = tar(entries);
        let diff_id = Digest::of(&bytes);
        let layer = Layer { diff_id: diff_id.clone(), chain_id: diff_id.clone(), parent: None };
        let staging = Staging { layer, dir: root.clone(), whiteouts };
        let expected = Expected { blob: None, diff_id: Some(&diff_id) };
        let _ = unpack(&bytes[..], &expected, Some(&staging), &UnpackLimits::default(), Box::new(|_| Ok(())));
    }
    assert_eq!(look(&victim), before);
    assert_eq!(fs::read_dir(dir.path()).expect("it can be listed").count(), 2);
});
