//! Layers written by the tar(1) of this system in every format it has: unpacked here, they are what it packed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use faas_jails::storage::Whiteouts;

use crate::support::*;

/// What is compared of one file. Links of one file share a number.
type Seen = (u32, u32, u32, Option<(i64, i64)>, u64, String, Vec<u8>);

fn look(root: &Path, exact_times: bool) -> BTreeMap<String, Seen> {
    let mut seen = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
            let target =
                if meta.is_symlink() { fs::read_link(&path).unwrap().display().to_string() } else { String::new() };
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let next = numbers.len() as u64;
            let number = if meta.is_file() { *numbers.entry(meta.ino()).or_insert(next) } else { 0 };
            let nanoseconds = if exact_times { meta.mtime_nsec() } else { 0 };
            let time = Some((meta.mtime(), nanoseconds));
            seen.insert(name, (meta.mode(), meta.uid(), meta.gid(), time, number, target, content));
            if meta.is_dir() {
                waiting.push(path);
            }
        }
    }
    seen
}

/// A tree with one of everything that survives a layer.
fn plant(root: &Path, long: usize) {
    let file = |name: &str, text: &[u8]| fs::write(root.join(name), text).unwrap();
    fs::create_dir_all(root.join("dir/empty")).unwrap();
    file("dir/plain", b"text");
    file("none", b"");
    file("block", &[7; 512]);
    file("more", &vec![8; 70_001]);
    file("ümläut \u{1F600} name", b"x");
    fs::hard_link(root.join("dir/plain"), root.join("linked")).unwrap();
    symlink("dir/plain", root.join("soft")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    // Names that need the extensions of each format: beyond 100 bytes, and beyond what ustar can split.
    let mut deep = root.to_owned();
    for at in 0..long {
        deep.push(format!("{at}-{}", "d".repeat(60)));
        fs::create_dir(&deep).unwrap();
    }
    fs::write(deep.join("f".repeat(90)), "deep").unwrap();
    if long > 2 {
        fs::write(root.join("n".repeat(200)), "wide").unwrap();
        symlink("t".repeat(300), root.join("far")).unwrap();
        fs::hard_link(root.join("n".repeat(200)), root.join("wide")).unwrap();
    }
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(3_000_000).unwrap();
    for at in [0, 500_000, 1_000_000, 1_500_000, 2_000_000, 2_900_000] {
        sparse.write_all_at(b"island", at).unwrap();
    }
    fs::set_permissions(root.join("dir"), fs::Permissions::from_mode(0o1770)).unwrap();
    fs::set_permissions(root.join("more"), fs::Permissions::from_mode(0o751)).unwrap();
    std::os::unix::fs::chown(root.join("more"), Some(12_345), Some(54_321)).unwrap();
    std::os::unix::fs::lchown(root.join("soft"), Some(7), Some(8)).unwrap();
}

#[test]
fn what_tar_packs_is_what_is_unpacked() {
    if !is_root("what_tar_packs_is_what_is_unpacked") {
        return;
    }
    let gnu = Command::new("tar").arg("--version").output().unwrap().stdout.starts_with(b"tar (GNU");
    let formats: &[(&[&str], usize)] = match gnu {
        true => &[
            (&["--format=gnu", "--sparse"], 5),
            (&["--format=gnu"], 5),
            (&["--format=posix", "--sparse", "--sparse-version=0.0"], 5),
            (&["--format=posix", "--sparse", "--sparse-version=0.1"], 5),
            (&["--format=posix", "--sparse", "--sparse-version=1.0"], 5),
            (&["--format=posix"], 5),
            (&["--format=ustar"], 2),
            (&["--format=oldgnu"], 5),
        ],
        false => &[(&["--format=pax"], 5), (&["--format=gnutar"], 5), (&["--format=ustar"], 2)],
    };
    for (options, long) in formats {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        plant(&tree.join("inner"), *long);
        let archive = place.path().join("layer.tar");
        let mut tar = Command::new("tar");
        tar.args(*options).arg("-cf").arg(&archive).arg("-C").arg(&tree).arg(".");
        assert!(tar.status().unwrap().success(), "tar {options:?}");
        let bench = Bench::new(Whiteouts::Apply);
        let sample = Sample::new(vec![fs::read(&archive).unwrap()]);
        let image = bench
            .load(&sample.oci_archive("r.example/f:1", gzip))
            .unwrap_or_else(|fault| panic!("{options:?}: {fault}"));
        let exact = options[0].contains("posix") || options[0].contains("pax");
        let (packed, unpacked) = (look(&tree, exact), look(&bench.storage.dir(&image[0].layers[0]), exact));
        let names = |seen: &BTreeMap<String, Seen>| seen.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&packed), names(&unpacked), "{options:?}");
        for (name, seen) in &packed {
            assert!(*seen == unpacked[name], "{options:?}: {name} differs");
        }
    }
}
