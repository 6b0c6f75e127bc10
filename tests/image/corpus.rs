//! Layers and archives that attack whoever unpacks them: one test per attack. Each ends in a refusal (or in
//! something harmless), with everything outside of the layer as it was and nothing half made left behind.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use faas_jails::fault::Fault;
use faas_jails::image::{Digest, Image, Layer};
use faas_jails::storage::Whiteouts;
use serde_json::json;

use crate::support::*;

/// A file outside of every layer, which attacks go for. Its contents, mode, owner, link count and time count,
/// and so do those of its directory.
struct Victim {
    dir: tempfile::TempDir,
    before: Vec<String>,
}

impl Victim {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        for file in ["secret", "inner/file"] {
            let path = dir.path().join(file);
            fs::write(&path, "untouched").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        let mut victim = Self { dir, before: Vec::new() };
        victim.before = victim.look();
        victim
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn look(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let mut waiting: Vec<PathBuf> = vec![self.dir.path().to_owned()];
        while let Some(path) = waiting.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let text = if meta.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
            seen.push(format!(
                "{} {:o} {} {} {} {}.{} {text}",
                path.display(),
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.nlink(),
                meta.mtime(),
                meta.mtime_nsec()
            ));
            if meta.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        seen.sort();
        seen
    }

    fn assert_untouched(&self) {
        assert_eq!(self.look(), self.before);
    }
}

/// Loads an image of these layers and says what became of it.
fn load(style: Whiteouts, layers: Vec<Vec<u8>>) -> (Bench, Result<Image, Fault>) {
    let bench = Bench::new(style);
    let loaded = bench.load(&Sample::new(layers).docker_save(&["evil:1"])).map(|mut images| images.remove(0));
    bench.assert_clean();
    (bench, loaded)
}

/// The image is refused with a sentence that has `reason` in it, whatever the storage, and leaves no record.
fn assert_refused(layers: &[Vec<u8>], reason: &str) {
    for &style in STYLES {
        let (bench, loaded) = load(style, layers.to_vec());
        let fault = loaded.expect_err("it was accepted").to_string();
        assert!(fault.contains(reason), "{fault}");
        assert!(fault.contains("evil:1"), "the sentence does not name the image: {fault}");
        assert_eq!(bench.store.list().unwrap(), []);
    }
}

fn top(bench: &Bench, image: &Image) -> PathBuf {
    bench.storage.dir(image.layers.last().unwrap())
}

macro_rules! needs_root {
    ($name:literal) => {
        if !is_root($name) {
            return;
        }
    };
}

#[test]
fn dotdot() {
    needs_root!("dotdot");
    let victim = Victim::new();
    for name in ["../evil", "a/../../evil", "..", "a/..", "./../../../../../../../../tmp/evil"] {
        assert_refused(&[Tar::new().file(name, "x").end()], "..");
    }
    let long = format!("{}/../../x", victim.path("inner"));
    assert_refused(&[Tar::new().pax(&[("path", long.as_bytes())]).file("harmless", "x").end()], "..");
    victim.assert_untouched();
}

#[test]
fn absolute_names_land_inside() {
    needs_root!("absolute_names_land_inside");
    let victim = Victim::new();
    let name = victim.path("secret");
    for &style in STYLES {
        let (bench, image) = load(style, vec![Tar::new().file(&name, "overwritten").end()]);
        let inside = top(&bench, &image.unwrap()).join(name.trim_start_matches('/'));
        assert_eq!(fs::read_to_string(inside).unwrap(), "overwritten");
        victim.assert_untouched();
    }
}

#[test]
fn a_symlink_written_through() {
    needs_root!("a_symlink_written_through");
    let victim = Victim::new();
    let (outside, secret) = (victim.path(""), victim.path("secret"));
    // The link in the same layer, and in the one below.
    let link = Tar::new().symlink("out", &outside);
    assert_refused(&[link.file("out/secret", "overwritten").end()], "symbolic link");
    let (_, applied) = load(
        Whiteouts::Apply,
        vec![Tar::new().symlink("out", &outside).end(), Tar::new().file("out/secret", "x").end()],
    );
    assert!(applied.unwrap_err().to_string().contains("symbolic link"));
    // A file with the link's own name replaces the link.
    for &style in STYLES {
        let layer = Tar::new().symlink("f", &secret).file("f", "replaced").end();
        let (bench, image) = load(style, vec![layer]);
        let file = top(&bench, &image.unwrap()).join("f");
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
        assert_eq!(fs::read_to_string(&file).unwrap(), "replaced");
    }
    victim.assert_untouched();
}

#[test]
fn a_chain_of_relative_links_climbs_out() {
    needs_root!("a_chain_of_relative_links_climbs_out");
    let victim = Victim::new();
    let layer = Tar::new().dir("a").symlink("a/up", "..").symlink("up", "a/up/../../../../../../../..");
    assert_refused(&[layer.file(&format!("up{}", victim.path("secret")), "x").end()], "symbolic link");
    victim.assert_untouched();
}

#[test]
fn a_hardlink_to_outside() {
    needs_root!("a_hardlink_to_outside");
    let victim = Victim::new();
    let secret = victim.path("secret");
    assert_refused(&[Tar::new().hardlink("h", "../../../../../etc/passwd").end()], "..");
    // Absolute means inside, where there is no such file.
    assert_refused(&[Tar::new().hardlink("h", &secret).file("h", "overwritten").end()], "not there");
    // Through a link in the layer.
    let layer = Tar::new().symlink("out", &victim.path("")).hardlink("h", "out/secret").file("h", "overwritten");
    assert_refused(&[layer.end()], "symbolic link");
    // A link to a link is a link, not what it leads to.
    for &style in STYLES {
        let layer = Tar::new().symlink("s", &secret).hardlink("h", "s").file("h", "replaced").end();
        let (bench, image) = load(style, vec![layer]);
        let dir = top(&bench, &image.unwrap());
        assert_eq!(fs::read_to_string(dir.join("h")).unwrap(), "replaced");
        assert!(fs::symlink_metadata(dir.join("s")).unwrap().is_symlink());
    }
    victim.assert_untouched();
}

#[test]
fn attributes_set_through_a_link() {
    needs_root!("attributes_set_through_a_link");
    let victim = Victim::new();
    for name in ["inner", "secret"] {
        // The link's own entry has attributes; then an entry of another kind has its name.
        let bare = Entry { name: b"l", kind: b'2', mode: 0o777, uid: 1234, gid: 1234, mtime: 1, ..Entry::default() };
        let target = victim.path(name);
        let link = Entry { link: target.as_bytes(), ..bare };
        let dir = Entry { name: b"l", kind: b'5', mode: 0o777, uid: 1234, gid: 1234, mtime: 1, ..Entry::default() };
        for &style in STYLES {
            let (bench, image) = load(style, vec![Tar::new().entry(&link).entry(&dir).end()]);
            let made = fs::symlink_metadata(top(&bench, &image.unwrap()).join("l")).unwrap();
            assert!(made.is_dir());
            assert_eq!(made.uid(), 1234);
            let (bench, image) = load(style, vec![Tar::new().entry(&dir).entry(&link).end()]);
            assert!(fs::symlink_metadata(top(&bench, &image.unwrap()).join("l")).unwrap().is_symlink());
        }
    }
    victim.assert_untouched();
}

#[test]
fn directories_made_through_a_link() {
    needs_root!("directories_made_through_a_link");
    let victim = Victim::new();
    let layer = || Tar::new().symlink("out", &victim.path(""));
    assert_refused(&[layer().dir("out/new").end()], "symbolic link");
    assert_refused(&[layer().file("out/new/deep/file", "x").end()], "symbolic link");
    assert_refused(&[layer().symlink("out/new", "x").end()], "symbolic link");
    victim.assert_untouched();
}

#[test]
fn whiteouts_through_a_symlinked_parent() {
    needs_root!("whiteouts_through_a_symlinked_parent");
    let victim = Victim::new();
    let link = Tar::new().symlink("out", &victim.path("")).end();
    for name in ["out/.wh.secret", "out/.wh..wh..opq", "out/inner/.wh.file"] {
        let same = Tar::new().symlink("out", &victim.path("")).file(name, "").end();
        assert_refused(&[same], "symbolic link");
        let (_, below) = load(Whiteouts::Apply, vec![link.clone(), Tar::new().file(name, "").end()]);
        assert!(below.unwrap_err().to_string().contains("symbolic link"));
    }
    // The link itself may be whited out; what it leads to stays.
    for &style in STYLES {
        load(style, vec![link.clone(), Tar::new().file(".wh.out", "").end()]).1.unwrap();
    }
    victim.assert_untouched();
}

#[test]
fn whiteouts_of_bad_names() {
    needs_root!("whiteouts_of_bad_names");
    let victim = Victim::new();
    for name in [".wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."] {
        assert_refused(&[Tar::new().dir("a").file(name, "").end()], "whiteout of no name");
    }
    for name in [".wh.a/b", ".wh.../secret", "x/.wh.y/z"] {
        assert_refused(&[Tar::new().file(name, "").end()], "whiteout with a slash");
    }
    assert_refused(&[Tar::new().symlink(".wh.a", &victim.path("secret")).end()], "no plain file");
    assert_refused(&[Tar::new().dir(".wh.a").end()], "no plain file");
    victim.assert_untouched();
}

#[test]
fn the_root_replaced_by_a_link() {
    needs_root!("the_root_replaced_by_a_link");
    let victim = Victim::new();
    for name in [".", "./", "/", ""] {
        let layer = Tar::new().symlink(name, &victim.path("")).file("secret", "overwritten").end();
        assert_refused(&[layer], "root");
        assert_refused(&[Tar::new().file(name, "x").end()], "root");
    }
    victim.assert_untouched();
}

#[test]
fn devices_fifos_and_sockets_are_left_out() {
    needs_root!("devices_fifos_and_sockets_are_left_out");
    for &style in STYLES {
        let mut layer = Tar::new();
        for kind in [b'3', b'4', b'6'] {
            let name = format!("dev/{}", kind as char);
            layer = layer.entry(&Entry { name: name.as_bytes(), kind, mode: 0o666, ..Entry::default() });
        }
        let (bench, image) = load(style, vec![layer.file("kept", "x").end()]);
        let dir = top(&bench, &image.unwrap());
        assert!(dir.join("kept").exists());
        assert!(!dir.join("dev/3").exists() && !dir.join("dev/4").exists() && !dir.join("dev/6").exists());
    }
}

#[test]
fn setuid_setgid_and_capabilities_do_not_survive() {
    needs_root!("setuid_setgid_and_capabilities_do_not_survive");
    for &style in STYLES {
        let layer = Tar::new()
            .entry(&Entry { name: b"d", kind: b'5', mode: 0o7777, ..Entry::default() })
            .pax(&[("SCHILY.xattr.security.capability", b"\x01\x00\x00\x02"), ("SCHILY.fflags", b"schg")])
            .entry(&Entry { name: b"d/f", mode: 0o7755, ..Entry::default() })
            .end();
        let (bench, image) = load(style, vec![layer]);
        let dir = top(&bench, &image.unwrap()).join("d");
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs::metadata(dir.join("f")).unwrap().mode() & 0o7777, 0o1755);
        // FreeBSD has no such attributes to leave.
        #[cfg(target_os = "linux")]
        assert_eq!(rustix::fs::listxattr(dir.join("f"), &mut [0; 256][..]).unwrap(), 0);
    }
}

#[test]
fn sizes_that_disagree() {
    needs_root!("sizes_that_disagree");
    // A reader that believes the header sees the inner tar's entries as the layer's own (CVE-2025-62518).
    let inner = Tar::new().file("smuggled", "x").cut();
    for (pax, header) in [(inner.len() as u64, Some(0)), (0, None), (1024, Some(512))] {
        let layer = Tar::new()
            .pax(&[("size", pax.to_string().as_bytes())])
            .entry(&Entry { name: b"outer", data: &inner, size: header, ..Entry::default() })
            .end();
        assert_refused(&[layer], "two sizes");
    }
    // A link that claims data.
    let layer = Tar::new().entry(&Entry { name: b"l", kind: b'2', link: b"x", size: Some(1024), ..Entry::default() });
    assert_refused(&[layer.raw(&inner).end()], "has no data");
    // A header between two blocks of zeroes.
    let mut layer = Tar::new().file("a", "x").raw(&[0; 512]).file("smuggled", "x").end();
    assert_refused(&[std::mem::take(&mut layer)], "block of zeroes");
}

#[test]
fn malformed_headers() {
    needs_root!("malformed_headers");
    let mut damaged = Tar::new().file("f", "x").end();
    damaged[0] = b'g';
    assert_refused(&[damaged], "checksum");
    let pax = |body: &[u8]| {
        let header = Entry { name: b"x", kind: b'x', data: body, ..Entry::default() };
        Tar::new().entry(&header).file("f", "x").end()
    };
    assert_refused(&[pax(b"99 path=a\n")], "PAX");
    assert_refused(&[pax(b"9 path=a\0")], "PAX");
    assert_refused(&[Tar::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("f", "x").end()], "two headers");
    assert_refused(&[Tar::new().pax(&[("path", b"a")]).end()], "announces an entry");
    let global = Entry { name: b"g", kind: b'g', data: b"10 path=a\n", ..Entry::default() };
    assert_refused(&[Tar::new().entry(&global).file("f", "x").end()], "global");
    assert_refused(&[b"this is no tar".repeat(100)], "checksum");
    let huge = Entry { name: b"x", kind: b'x', size: Some(1 << 30), ..Entry::default() };
    assert_refused(&[Tar::new().entry(&huge).end()], "limit");
    let odd = Entry { name: b"f", kind: b'%', ..Entry::default() };
    assert_refused(&[Tar::new().entry(&odd).end()], "unknown tar type");
}

#[test]
fn a_gzip_bomb() {
    needs_root!("a_gzip_bomb");
    // 64 MiB of zeroes in 64 kB; the caps are set to where it hurts.
    let layer = Tar::new().file("zeroes", vec![0; 64 << 20]).end();
    for pack in [gzip as fn(&[u8]) -> Vec<u8>, zstd] {
        let archive = Sample::new(vec![layer.clone()]).oci_archive("r.example/bomb:1", pack);
        let mut by_bytes = settings();
        by_bytes.limits.bytes = 1 << 20;
        let mut by_ratio = settings();
        by_ratio.limits.ratio_from = 1 << 20;
        by_ratio.limits.ratio = 100;
        let mut by_time = settings();
        by_time.limits.time = Duration::ZERO;
        for (settings, reason) in [(by_bytes, "limit"), (by_ratio, "bomb"), (by_time, "longer than 0 s")] {
            let bench = Bench::with(Whiteouts::Overlay, settings);
            let fault = bench.load(&archive).unwrap_err().to_string();
            assert!(fault.contains(reason), "{fault}");
            bench.assert_clean();
            assert!(!bench.storage.root.join("layers").exists());
        }
    }
}

#[test]
fn a_million_entries() {
    needs_root!("a_million_entries");
    // Nothing is special about a million but its being the default.
    assert_eq!(settings().limits.entries, 1_000_000);
    let mut settings = settings();
    settings.limits.entries = 1000;
    let layer = |entries| (0..entries).fold(Tar::new(), |tar, _| tar.dir("d")).end();
    for (entries, fits) in [(1000, true), (1001, false)] {
        let bench = Bench::with(Whiteouts::Apply, settings.clone());
        let loaded = bench.load(&Sample::new(vec![layer(entries)]).docker_save(&["f"]));
        assert_eq!(loaded.is_ok(), fits);
        bench.assert_clean();
    }
}

#[test]
fn paths_that_are_too_long_or_too_deep() {
    needs_root!("paths_that_are_too_long_or_too_deep");
    for path in ["x".repeat(256), "x/".repeat(200), "y/".repeat(3000)] {
        assert_refused(&[Tar::new().pax(&[("path", path.as_bytes())]).file("f", "x").end()], "entry");
    }
}

#[test]
fn sparse_files_that_claim_too_much() {
    needs_root!("sparse_files_that_claim_too_much");
    let claim = |real: &str| {
        let records: [(&str, &[u8]); 5] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"f"),
            ("GNU.sparse.realsize", real.as_bytes()),
            ("path", b"GNUSparseFile.0/f"),
        ];
        let mut data = b"1\n0\n4\n".to_vec();
        data.resize(512, 0);
        data.extend_from_slice(b"data");
        Tar::new().pax(&records).file("f", data).end()
    };
    assert_refused(&[claim("9223372036854775807")], "limit");
    assert_refused(&[claim("3")], "contradicts itself");
    let (bench, image) = load(Whiteouts::Apply, vec![claim("1000000")]);
    let file = fs::metadata(top(&bench, &image.unwrap()).join("f")).unwrap();
    assert_eq!(file.len(), 1_000_000);
    assert!(file.blocks() * 512 < 500_000);
}

#[test]
fn a_wrong_digest() {
    needs_root!("a_wrong_digest");
    let sample = Sample::new(vec![Tar::new().file("honest", "x").end()]);
    let (blobs, _) = sample.oci_blobs(gzip);
    let layer = Digest::of(&blobs[1]);
    let mut archive = sample.oci_archive("evil:1", gzip);
    // Another gzip stream of the same length: of the same tar, so that only the digest is wrong.
    let at = archive.windows(blobs[1].len()).position(|window| window == blobs[1]).unwrap();
    archive[at + 4] ^= 1; // gzip's time field
    let bench = Bench::new(Whiteouts::Apply);
    let fault = bench.load(&archive).unwrap_err().to_string();
    assert!(fault.contains(layer.as_str()) && fault.contains("damaged or exchanged"), "{fault}");
    bench.assert_clean();
    assert!(!bench.storage.root.join("layers").exists());
}

#[test]
fn a_wrong_diff_id() {
    needs_root!("a_wrong_diff_id");
    let honest = Tar::new().file("honest", "x").end();
    let evil = Tar::new().file("evil!!", "x").end();
    let mut archive = Sample::new(vec![honest.clone()]).docker_save(&["evil:1"]);
    let at = archive.windows(honest.len()).position(|window| window == honest).unwrap();
    archive[at..at + evil.len()].copy_from_slice(&evil);
    let bench = Bench::new(Whiteouts::Apply);
    let fault = bench.load(&archive).unwrap_err().to_string();
    assert!(fault.contains("diff-id"), "{fault}");
    bench.assert_clean();
    assert!(!bench.storage.root.join("layers").exists());
}

#[test]
fn a_digest_used_as_a_path() {
    needs_root!("a_digest_used_as_a_path");
    let victim = Victim::new();
    let secret = victim.path("secret");
    let evil = format!("sha256:../../../../../../../..{secret}");
    let descriptor = json!({"mediaType": "x", "digest": evil, "size": 9});
    let index = json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string();
    let config = json!({"rootfs": {"diff_ids": [evil]}, "config": {"Cmd": ["x"]}}).to_string();
    let save = json!([{"Config": "c.json", "RepoTags": ["evil:1"], "Layers": ["l"]}]).to_string();
    let outside = json!([{"Config": secret, "RepoTags": ["evil:1"], "Layers": [secret]}]).to_string();
    for archive in [
        Tar::new().file("index.json", index).end(),
        Tar::new().file("manifest.json", &save).file("c.json", config).file("l", "").end(),
        Tar::new().file("manifest.json", outside).end(),
    ] {
        let bench = Bench::new(Whiteouts::Apply);
        bench.load(&archive).unwrap_err();
        bench.assert_clean();
        let layout = bench.dir.path().join("layout");
        untar(&archive, &layout);
        bench.store.load(faas_jails::image::Source::path(&layout), None, &faas_jails::image::Silent).unwrap_err();
    }
    victim.assert_untouched();
}

#[test]
fn a_truncated_layer_and_a_truncated_archive() {
    needs_root!("a_truncated_layer_and_a_truncated_archive");
    let sample = Sample::new(vec![Tar::new().file("f", "x".repeat(5000)).end()]);
    let whole = sample.oci_archive("evil:1", gzip);
    for keep in (0..whole.len()).step_by(331) {
        let bench = Bench::new(Whiteouts::Overlay);
        if let Ok(images) = bench.load(&whole[..keep]) {
            // Only the zeroes at the end may be missing.
            assert!(keep + 1024 >= whole.len(), "{keep} of {} bytes were enough for {images:?}", whole.len());
        }
        bench.assert_clean();
    }
    let cut = Tar::new().file("f", "x".repeat(5000)).cut();
    assert_refused(&[cut[..3000].to_vec()], "cut off");
}

#[test]
fn user_ids_beyond_2_to_the_31() {
    needs_root!("user_ids_beyond_2_to_the_31");
    for user in ["2147483648", "4294967296", "-1", "0:4294967295"] {
        let bench = Bench::new(Whiteouts::Apply);
        let layer = Tar::new().file("f", "x").end();
        let sample = Sample { config: json!({"Cmd": ["x"], "User": user}), ..Sample::new(vec![layer]) };
        let fault = bench.load(&sample.docker_save(&["evil:1"])).unwrap_err().to_string();
        assert!(fault.contains("refused") && fault.contains("2147483647"), "{fault}");
        assert_eq!(bench.store.list().unwrap(), []);
    }
    let owner = Entry { name: b"f", ..Entry::default() };
    for id in ["4294967295", "4294967296"] {
        assert_refused(&[Tar::new().pax(&[("uid", id.as_bytes())]).entry(&owner).end()], "no system has");
    }
}

#[test]
fn an_image_without_a_command_or_with_other_layers_than_its_config_says() {
    needs_root!("an_image_without_a_command_or_with_other_layers_than_its_config_says");
    let bench = Bench::new(Whiteouts::Apply);
    let sample = Sample { config: json!({}), ..Sample::new(vec![Tar::new().file("f", "x").end()]) };
    let fault = bench.load(&sample.docker_save(&["evil:1"])).unwrap_err().to_string();
    assert!(fault.ends_with("image evil:1 has no command: its config has neither Entrypoint nor Cmd"), "{fault}");
    let save = json!([{"Config": "c.json", "RepoTags": ["evil:1"], "Layers": ["l", "l"]}]).to_string();
    let config = Sample::new(vec![b"".to_vec()]).config_json();
    let archive = Tar::new().file("manifest.json", &save).file("c.json", config).file("l", "").end();
    let fault = bench.load(&archive).unwrap_err().to_string();
    assert!(fault.contains("its config lists 1 layers, its manifest 2"), "{fault}");
}

#[test]
fn links_in_an_archive_never_leave_it() {
    needs_root!("links_in_an_archive_never_leave_it");
    let victim = Victim::new();
    let layer = Tar::new().file("f", "x").end();
    let save =
        |layers: &str| json!([{"Config": "c.json", "RepoTags": ["r.example/a:1"], "Layers": [layers]}]).to_string();
    let config = Sample::new(vec![layer.clone()]).config_json();
    let archive = |target: &str| {
        let tar = Tar::new().file("manifest.json", save("a/layer.tar")).file("c.json", &config);
        tar.file("b/layer.tar", &layer).symlink("a/layer.tar", target).end()
    };
    Bench::new(Whiteouts::Apply).load(&archive("../b/layer.tar")).unwrap();
    for target in [victim.path("secret"), "../../../../etc/passwd".to_owned(), "../a/layer.tar".to_owned()] {
        Bench::new(Whiteouts::Apply).load(&archive(&target)).unwrap_err();
    }
    victim.assert_untouched();
}

#[test]
fn whiteouts_spare_what_their_own_layer_brings() {
    needs_root!("whiteouts_spare_what_their_own_layer_brings");
    let below = Tar::new().dir("d").file("d/old", "x").dir("e").file("e/old", "x").file("f", "old").end();
    let above = Tar::new()
        .file("d/new", "y")
        .file("d/.wh..wh..opq", "")
        .file("e/new", "y")
        .file(".wh.e", "")
        .file("f", "new")
        .file(".wh.f", "")
        .end();
    let (bench, image) = load(Whiteouts::Apply, vec![below, above]);
    let dir = top(&bench, &image.unwrap());
    let mut left: Vec<String> = Vec::new();
    for name in ["d/old", "d/new", "e/old", "e/new", "f"] {
        if let Ok(text) = fs::read_to_string(dir.join(name)) {
            left.push(format!("{name}={text}"));
        }
    }
    assert_eq!(left, ["d/new=y", "e/new=y", "f=new"]);
}

/// What a layer's storage key may be: nothing that comes from outside without being a digest.
#[test]
fn layer_ids_are_digests() {
    let layer: Result<Layer, _> = serde_json::from_value(json!({
        "diff_id": "sha256:../x", "chain_id": "sha256:../x", "parent": null
    }));
    layer.unwrap_err();
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_replaced_by_an_implied_directory_hides_what_was_below() {
    needs_root!("a_file_replaced_by_an_implied_directory_hides_what_was_below");
    let layer = Tar::new().file(".wh.a", "").file("a/b", "x").end();
    let (bench, image) = load(Whiteouts::Overlay, vec![layer]);
    let dir = top(&bench, &image.unwrap()).join("a");
    assert_eq!(fs::read_to_string(dir.join("b")).unwrap(), "x");
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(&dir, "trusted.overlay.opaque", &mut value[..]).unwrap(), 1);
}

/// docs/images.md has a table of what is tried; its last column is the test.
#[test]
fn every_row_of_the_document_names_a_test_and_every_test_here_has_a_row() {
    let sources = [
        include_str!("corpus.rs"),
        include_str!("interrupted.rs"),
        include_str!("misbehaviour.rs"),
        include_str!("../suite/full_disk.rs"),
        include_str!("../suite/on_zfs.rs"),
        include_str!("../suite/ship.rs"),
        include_str!("../zfs/layers.rs"),
    ];
    let tests: Vec<Vec<&str>> = sources
        .iter()
        .map(|source| {
            // An attribute may stand between.
            let after =
                source.split("\n#[test]\n").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
            after.map(|(name, _)| name).collect()
        })
        .collect();
    let document = include_str!("../../docs/images.md");
    let (_, table) = document.split_once("## What a hostile one can try").expect("the chapter");
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let named: Vec<&str> = rows
        .filter_map(|row| row.trim_end_matches([' ', '|']).rsplit_once('|'))
        .flat_map(|(_, tests)| tests.split('`').skip(1).step_by(2))
        .collect();
    assert!(named.len() > 30, "{named:?}");
    for name in &named {
        assert!(tests.iter().flatten().any(|test| test == name), "docs/images.md names {name}, which is no test");
    }
    let own = "every_row_of_the_document_names_a_test_and_every_test_here_has_a_row";
    let without: Vec<&&str> = tests[0].iter().filter(|test| **test != own && !named.contains(test)).collect();
    assert!(without.is_empty(), "no row in docs/images.md names {without:?}");
}
