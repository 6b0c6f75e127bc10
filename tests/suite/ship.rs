//! `image export` and `image import`: an image goes from host to host as ZFS streams, signed.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::needs_root;
use crate::support::image::{Image, Layer};
use crate::support::images::probe_image;
use crate::support::{Daemon, registry};
use crate::zpool::Pool;

/// Two pairs that `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` have made.
const PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEINE8riMmLDbN8k9kUzqKb/PVjoR2fOmAutm2vLS9E00Y";
const PUBLIC: &str = "MCowBQYDK2VwAyEAjqx0GBxmRsknR+rYiLghlFgZZfurwoqJFFTGD3DRMBM=";
const OTHER: &str = "MCowBQYDK2VwAyEAQekVc8e3CJ7BMNs7kqFGxWCMkSVwWm4oBX6dpr73cug=";

fn pem(file: &Path, kind: &str, body: &str) -> String {
    let text = format!("-----BEGIN {kind} KEY-----\n{body}\n-----END {kind} KEY-----\n");
    fs::write(file, text).expect("writing a key");
    file.display().to_string()
}

/// Two hosts with a pool each: in one pool, ZFS would take what the other has for what it looks for.
struct Hosts {
    here: Pool,
    there: Pool,
    files: tempfile::TempDir,
}

impl Hosts {
    fn new() -> Option<Self> {
        let (here, there) = (Pool::new(256)?, Pool::new(256)?);
        Some(Self { here, there, files: tempfile::tempdir().expect("a temporary directory") })
    }

    /// A host that trusts this key. Its daemon does not run yet.
    fn host(&self, pool: &Pool, key: &str) -> Daemon {
        let key = pem(&self.file(&format!("{}.pub", pool.name())), "PUBLIC", key);
        let options = Daemon::with().zfs(pool.name()).without_images();
        options.images(&format!("trusted_keys = [\"{key}\"]")).prepare()
    }

    fn both(&self) -> (Daemon, Daemon) {
        (self.host(&self.here, OTHER), self.host(&self.there, PUBLIC))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn private(&self) -> String {
        pem(&self.file("image.key"), "PRIVATE", PRIVATE)
    }

    /// Loads an image and exports it, signed; more arguments may follow.
    fn export(&self, host: &Daemon, image: &Image, tag: &str, more: &[&str]) -> PathBuf {
        let (archive, shipped) =
            (self.file("image.tar"), self.file(&format!("{}.zfs.tar", tag.replace([':', '/'], "-"))));
        fs::write(&archive, image.docker_save(tag)).expect("writing an archive");
        succeeds(host.run(&["image", "load", text(&archive)]));
        let arguments = ["image", "export", tag, text(&shipped), "--key", &self.private()];
        let told = succeeds(host.run(&[&arguments[..], more].concat()));
        assert!(told.contains(tag) && told.contains(text(&shipped)), "{told}");
        shipped
    }

    fn finish(self, hosts: impl IntoIterator<Item = Daemon>) {
        for mut host in hosts {
            host.kill9();
            succeeds(host.run(&["purge", "--all"]));
        }
        for pool in [self.here, self.there] {
            assert_eq!(layers(&pool), [""; 0]);
            pool.finish();
        }
    }
}

/// Datasets and snapshots of layers, whole and half made.
fn layers(pool: &Pool) -> Vec<String> {
    let all = pool.datasets().into_iter();
    all.filter(|name| name.contains("/layers/") || name.contains("/staging/")).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

#[track_caller]
fn succeeds(out: Output) -> String {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// One sentence with these words, and this exit code.
#[track_caller]
fn fails(out: Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(code), "{said}");
    let sentence = said.lines().last().expect("a sentence");
    assert!(words.iter().all(|word| sentence.contains(word)), "{words:?} are not all in: {said}");
}

fn version(number: &str) -> Image {
    probe_image().layer(Layer::new().directory("etc", 0o755).file("etc/version", 0o644, number.as_bytes()))
}

/// Answers one request after the other with a status and bytes, of which it may promise more than it sends.
fn serve(answers: Vec<(u16, Vec<u8>, usize)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    let url = format!("http://{}/images/f.zfs.tar", listener.local_addr().expect("its address"));
    std::thread::spawn(move || {
        for (status, body, promised) in answers {
            let (mut connection, _) = listener.accept().expect("a connection");
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {promised}\r\n\r\n");
            let _ = connection.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    url
}

#[test]
fn an_image_travels_by_http_and_its_next_version_as_its_new_layers() {
    needs_root!();
    let Some(hosts) = Hosts::new() else { return };
    let (here, mut there) = hosts.both();
    there.start_again();
    let first = hosts.export(&here, &version("1"), "example.test/f:1", &[]);
    let names: Vec<String> = tar::Archive::new(fs::File::open(&first).expect("the archive"))
        .entries()
        .expect("a tar")
        .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
        .collect();
    assert_eq!(names[..2], ["faas-jails.json", "faas-jails.sig"]);
    assert!(names.len() == 5 && names[2..].iter().all(|name| name.ends_with(".zfs.zst")), "{names:?}");

    let bytes = fs::read(&first).expect("the archive");
    let length = bytes.len();
    let told = succeeds(there.run(&["image", "import", &serve(vec![(200, bytes, length)])]));
    assert!(told.contains("imported example.test/f:1"), "{told}");
    there.deploy(json!({"service": "f", "image": "example.test/f:1"}));
    let deployed = |daemon: &Daemon| daemon.call("f/files?path=/etc/version").expect(200).text();
    assert_eq!(deployed(&there), "1");

    let next = hosts.export(&here, &version("2"), "example.test/f:2", &["--above", "example.test/f:1"]);
    let size = |path: &Path| path.metadata().expect("the archive").len();
    assert!(size(&next) < size(&first) / 10, "{} of {}", size(&next), size(&first));
    let before = layers(&hosts.there).len();
    succeeds(there.run(&["image", "import", text(&next)]));
    assert_eq!(layers(&hosts.there).len(), before + 2, "one layer is one dataset and its snapshot");
    there.update(json!({"service": "f", "image": "example.test/f:2"})).expect(202);
    assert_eq!(deployed(&there), "2");
    // Whole archives bring only what is missing, and imports can be repeated.
    succeeds(there.run(&["image", "import", text(&first)]));
    assert_eq!(layers(&hosts.there).len(), before + 2);

    // Prune knows layers that came this way.
    there.delete("f").expect(202);
    crate::support::eventually("every layer is freed", || {
        succeeds(there.run(&["image", "prune"]));
        layers(&hosts.there).is_empty().then_some(())
    });
    fails(there.run(&["image", "import", text(&next)]), 66, &["begins above layer", "import the archive that has it"]);
    hosts.finish([here, there]);
}

#[test]
fn what_is_not_signed_not_whole_or_not_there_is_not_imported() {
    needs_root!();
    let Some(hosts) = Hosts::new() else { return };
    let (here, there) = hosts.both();
    let signed = hosts.export(&here, &version("1"), "example.test/f:1", &[]);
    let import = |from: &str| there.run(&["image", "import", from]);
    let whole = fs::read(&signed).expect("the archive");
    let broken = hosts.file("broken.zfs.tar");
    for length in [0, 700, whole.len() / 2, whole.len() - 20_000] {
        fs::write(&broken, &whole[..length]).expect("writing");
        fails(import(text(&broken)), 64, &["cannot import", text(&broken)]);
    }
    for at in [600, whole.len() / 2] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&broken, bytes).expect("writing");
        fails(import(text(&broken)), 64, &[text(&broken)]);
    }
    let unsigned = hosts.file("unsigned.zfs.tar");
    let out = here.run(&["image", "export", "example.test/f:1", text(&unsigned)]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("not signed"));
    succeeds(out);
    fails(import(text(&unsigned)), 64, &["is not trusted", "not signed"]);
    // The host that exports trusts another key than its own.
    fails(here.run(&["image", "import", text(&signed)]), 64, &["is not trusted", "none of the trusted keys"]);

    let half = whole[..whole.len() / 2].to_vec();
    let url = serve(vec![(404, vec![], 0), (500, vec![], 0), (200, half, whole.len())]);
    fails(import(&url), 66, &[&url, "404"]);
    fails(import(&url), 71, &[&url]);
    fails(import(&url), 71, &[&url, "broke off"]);
    let nobody = format!("http://{}/f.zfs.tar", registry::free_address());
    fails(import(&nobody), 71, &[&nobody, "the server did not send it"]);
    fails(import("https://example.test/f.zfs.tar"), 64, &["http://"]);
    fails(import("/nowhere/f.zfs.tar"), 66, &["/nowhere/f.zfs.tar"]);
    fails(there.run(&["image", "export", "example.test/none:1", text(&broken)]), 66, &["example.test/none:1"]);
    let no_key = ["image", "export", "example.test/f:1", text(&broken), "--key", text(&signed)];
    fails(here.run(&no_key), 64, &["openssl genpkey"]);
    assert_eq!(layers(&hosts.there), [""; 0]);
    assert!(!succeeds(there.run(&["image", "ls"])).contains("example.test"));

    succeeds(there.run(&["image", "import", "--unsigned", text(&unsigned)]));
    assert!(succeeds(there.run(&["image", "ls"])).contains("example.test/f:1"));
    hosts.finish([here, there]);
}

#[test]
fn an_export_is_piped_into_an_import() {
    needs_root!();
    let Some(hosts) = Hosts::new() else { return };
    let (here, there) = hosts.both();
    hosts.export(&here, &version("1"), "example.test/f:1", &[]);
    let mut export = here.command();
    export.args(["image", "export", "example.test/f:1", "-", "--key", &hosts.private()]);
    let mut export = export.stdout(Stdio::piped()).spawn().expect("running faas-jails");
    let mut import: Command = there.command();
    import.args(["image", "import", "-"]).stdin(export.stdout.take().expect("its output"));
    assert!(succeeds(import.output().expect("running faas-jails")).contains("example.test/f:1"));
    assert!(export.wait().expect("waiting").success());
    hosts.finish([here, there]);
}

#[test]
fn without_zfs_there_is_no_export_and_no_import() {
    needs_root!();
    crate::linux_only!("is about overlay storage");
    let daemon = Daemon::with().set("storage = \"overlay\"").without_images().prepare();
    for verb in [["export", "example.test/f:1", "f.zfs.tar"].as_slice(), &["import", "f.zfs.tar"]] {
        let out = daemon.run(&[&["image"], verb].concat());
        fails(out, 69, &["needs storage = \"zfs\"", "image load"]);
    }
}
