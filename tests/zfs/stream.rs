use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use faas_jails::fault::{Kind, Result};
use faas_jails::image::{Digest, Image, Layer, Origin, RunConfig, Silent};
use faas_jails::platform::zfs::stream::{Archive, Export, PublicKey, SigningKey, Trust, fetch, keep};
use faas_jails::storage::{RootOptions, Storage};

use crate::fixture::{Fixture, chain, each, replica};
use crate::zpool::zfs;

fn pem(kind: &str, body: &str) -> Vec<u8> {
    format!("-----BEGIN {kind} KEY-----\n{body}\n-----END {kind} KEY-----\n").into_bytes()
}

fn key() -> SigningKey {
    SigningKey::parse(&pem("PRIVATE", "MC4CAQAwBQYDK2VwBCIEINE8riMmLDbN8k9kUzqKb/PVjoR2fOmAutm2vLS9E00Y")).unwrap()
}

fn trusted() -> Trust {
    let public = |body| PublicKey::parse(&pem("PUBLIC", body)).unwrap();
    Trust::Keys(vec![
        public("MCowBQYDK2VwAyEAQekVc8e3CJ7BMNs7kqFGxWCMkSVwWm4oBX6dpr73cug="),
        public("MCowBQYDK2VwAyEAjqx0GBxmRsknR+rYiLghlFgZZfurwoqJFFTGD3DRMBM="),
    ])
}

fn image(layers: &[Layer]) -> Image {
    let top = layers.last().map_or(Digest::of(""), |layer| layer.chain_id.clone());
    Image {
        reference: "example.com/figlet:1".parse().unwrap(),
        origin: Origin::Pulled,
        manifest: top.clone(),
        resolved: top,
        layers: layers.to_vec(),
        run: RunConfig { argv: vec!["/figlet".into()], workdir: "/".into(), ..RunConfig::default() },
        platform: "linux/amd64".into(),
        size: 1,
        loaded: "2026-01-01T00:00:00Z".parse().unwrap(),
    }
}

/// Exports all layers, signed.
fn export(fixture: &Fixture, layers: &[Layer]) -> PathBuf {
    let file = fixture.pool.dir().join("image.tar");
    let key = key();
    fixture.storage.export(&image(layers), &file, &Export { key: Some(&key), ..Export::default() }).unwrap();
    file
}

fn import(fixture: &Fixture, file: &Path) -> Result<Image> {
    import_trusting(fixture, file, &trusted())
}

fn import_trusting(fixture: &Fixture, file: &Path, trust: &Trust) -> Result<Image> {
    take(fixture, std::fs::File::open(file)?, trust)
}

fn take(fixture: &Fixture, file: std::fs::File, trust: &Trust) -> Result<Image> {
    let archive = Archive::open(file, trust)?;
    fixture.storage.import(&archive, &Silent).map(|()| archive.image().clone())
}

fn assert_root(fixture: &Fixture, layers: &[Layer], names: &[&str]) {
    let name = replica("f");
    let root = fixture.storage.clone_root(layers, &name, &RootOptions::default()).unwrap();
    fixture.enter(&root, |dir| {
        let mut found: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, names);
        assert!(names.iter().all(|name| std::fs::read(dir.join(name)).unwrap().len() == 1 << 20));
    });
    fixture.storage.destroy_root(&name).unwrap();
}

fn remove(fixture: &Fixture, layers: &[Layer]) {
    layers.iter().rev().for_each(|layer| fixture.storage.remove_layer(layer).unwrap());
}

/// Runs a test with two pools.
fn each_pair(mebibytes: u64, test: impl Fn(&Fixture, &Fixture)) {
    each(mebibytes, |from| {
        let Some(to) = Fixture::new(mebibytes, from.style) else { return };
        test(from, &to);
        to.finish();
    });
}

#[test]
fn an_image_travels_and_is_the_same() {
    each_pair(128, |from, to| {
        let layers = chain(&["base", "middle", "top"]);
        for (layer, name) in layers.iter().zip(["base", "middle", "top"]) {
            from.load(layer, name, 1);
        }
        let file = export(from, &layers);
        let arrived = import(to, &file).unwrap();
        assert_eq!(arrived, image(&layers));
        assert_eq!(to.storage.inventory().unwrap().layers.len(), 3);
        assert_root(to, &layers, &["base", "middle", "top"]);
        let before = to.pool.datasets();
        to.storage.recover().unwrap();
        import(to, &file).unwrap();
        assert_eq!(to.pool.datasets(), before, "importing again made something");
        let fault = to.storage.remove_layer(&layers[1]).unwrap_err();
        assert_eq!(fault.kind(), Kind::Busy, "layers that travelled share nothing");
        std::fs::remove_file(&file).unwrap();
        // And on.
        let again = export(to, &layers);
        remove(to, &layers);
        remove(from, &layers);
        import(from, &again).unwrap();
        assert_root(from, &layers, &["base", "middle", "top"]);
        remove(from, &layers);
    });
}

#[test]
fn only_new_layers_travel_when_the_base_is_there() {
    each_pair(128, |from, to| {
        let layers = chain(&["base", "top"]);
        from.load(&layers[0], "base", 1);
        from.load(&layers[1], "top", 1);
        let whole = export(from, &layers);
        let part = from.pool.dir().join("part.tar");
        let key = key();
        let above = Export { above: Some(&layers[0]), key: Some(&key), ..Export::default() };
        from.storage.export(&image(&layers), &part, &above).unwrap();
        let size = |path: &Path| path.metadata().unwrap().len();
        assert!(size(&part) < size(&whole) * 2 / 3, "{} of {}", size(&part), size(&whole));

        let fault = import(to, &part).unwrap_err();
        assert_eq!(fault.kind(), Kind::NotFound);
        assert!(fault.to_string().contains(layers[0].chain_id.as_str()), "{fault}");
        from.storage.export(&image(&layers[..1]), &whole, &Export { key: Some(&key), ..Export::default() }).unwrap();
        import(to, &whole).unwrap();
        import(to, &part).unwrap();
        assert_root(to, &layers, &["base", "top"]);
        remove(to, &layers);
        // A base of the same name that did not come from here.
        to.load(&layers[0], "base", 1);
        let fault = import(to, &part).unwrap_err();
        assert_eq!(fault.kind(), Kind::NotFound);
        assert!(fault.to_string().contains("whole archive"), "{fault}");
        remove(to, &layers[..1]);
        remove(from, &layers);
    });
}

#[test]
fn a_base_that_came_another_way_is_no_hindrance() {
    each_pair(128, |from, to| {
        let layers = chain(&["base", "middle", "third", "top"]);
        for (layer, name) in layers.iter().zip(["base", "middle", "third", "top"]) {
            from.load(layer, name, 1);
        }
        to.load(&layers[0], "base", 1);
        to.load(&layers[1], "middle", 1);
        let file = export(from, &layers);
        import(to, &file).unwrap();
        assert_root(to, &layers, &["base", "middle", "third", "top"]);
        assert_root(to, &layers[..2], &["base", "middle"]);
        let stray = to.pool.datasets().into_iter().find(|name| name.contains("@below") || name.contains("/staging/"));
        assert_eq!(stray, None);
        // The third stands alone, and travels as such.
        remove(to, &layers[..2]);
        assert_root(to, &layers, &["base", "middle", "third", "top"]);
        to.load(&layers[0], "base", 1);
        to.load(&layers[1], "middle", 1);
        remove(from, &layers);
        let again = export(to, &layers);
        import(from, &again).unwrap();
        assert_root(from, &layers, &["base", "middle", "third", "top"]);
        remove(from, &layers);
        remove(to, &layers);
    });
}

#[test]
fn an_image_without_layers_travels() {
    each(128, |fixture| {
        let file = export(fixture, &[]);
        assert_eq!(import(fixture, &file).unwrap().layers, []);
        std::fs::remove_file(file).unwrap();
    });
}

#[test]
fn what_is_not_trusted_is_not_received() {
    each_pair(128, |from, to| {
        let layers = chain(&["base"]);
        from.load(&layers[0], "base", 1);
        let file = export(from, &layers);
        let before = to.pool.datasets();
        for trust in [
            Trust::Keys(vec![]),
            Trust::Keys(vec![
                PublicKey::parse(&pem("PUBLIC", "MCowBQYDK2VwAyEAQekVc8e3CJ7BMNs7kqFGxWCMkSVwWm4oBX6dpr73cug="))
                    .unwrap(),
            ]),
        ] {
            let fault = import_trusting(to, &file, &trust).unwrap_err();
            assert_eq!(fault.kind(), Kind::Invalid);
            assert!(fault.to_string().contains("not trusted"), "{fault}");
        }
        from.storage.export(&image(&layers), &file, &Export::default()).unwrap();
        assert!(import(to, &file).unwrap_err().to_string().contains("not signed"));
        assert_eq!(to.pool.datasets(), before);
        import_trusting(to, &file, &Trust::Anyone).unwrap();
        remove(to, &layers);
        remove(from, &layers);
    });
}

#[test]
fn a_damaged_archive_leaves_nothing() {
    each_pair(128, |from, to| {
        let layers = chain(&["base", "top"]);
        from.load(&layers[0], "base", 1);
        from.load(&layers[1], "top", 1);
        let file = export(from, &layers);
        let whole = std::fs::read(&file).unwrap();
        let before = to.pool.datasets();
        let broken = to.pool.dir().join("broken.tar");
        // In the description, the signature, the streams.
        let signature = (600..whole.len()).find(|at| whole[*at..].starts_with(b"faas-jails.sig")).unwrap() + 512;
        for at in [600, signature, signature + 2000, whole.len() / 2, whole.len() * 9 / 10] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&broken, bytes).unwrap();
            import(to, &broken).expect_err(&format!("byte {at} of {} was changed", whole.len()));
        }
        for length in [0, 100, 512, 3000, whole.len() / 2, whole.len() - 20_000] {
            std::fs::write(&broken, &whole[..length]).unwrap();
            import(to, &broken).expect_err(&format!("cut off after {length} of {}", whole.len()));
        }
        std::fs::remove_file(&broken).unwrap();
        assert_eq!(to.pool.datasets(), before);
        assert_eq!(import(to, &broken).unwrap_err().kind(), Kind::NotFound);
        remove(from, &layers);
    });
}

/// An archive whose digests are right and whose first stream is another one than a layer's.
fn forge(file: &Path, stream: &[u8]) {
    let whole = std::fs::File::open(file).unwrap();
    let mut members = Vec::new();
    for entry in tar::Archive::new(whole).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.push((entry.path().unwrap().into_owned(), bytes));
    }
    members.retain(|(name, _)| name != Path::new("faas-jails.sig"));
    let compressed = zstd::encode_all(stream, 1).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&members[0].1).unwrap();
    manifest["pieces"][0]["digest"] = Digest::of(&compressed).as_str().into();
    manifest["pieces"][0]["size"] = compressed.len().into();
    manifest["pieces"][0]["unpacked"] = stream.len().into();
    members[0].1 = serde_json::to_vec(&manifest).unwrap();
    members[1].1 = compressed;
    let mut tar = tar::Builder::new(std::fs::File::create(file).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.finish().unwrap();
}

#[test]
fn a_stream_that_would_do_more_is_refused_though_its_digest_is_right() {
    each_pair(128, |from, to| {
        let layers = chain(&["base"]);
        from.load(&layers[0], "base", 1);
        let file = export(from, &layers);
        let snapshot = from.dataset(&format!("layers/{}@layer", layers[0].chain_id.hex()));
        let send = |arguments: &[&str]| Command::new("zfs").args(arguments).output().unwrap().stdout;
        let good = send(&["send", &snapshot]);
        let before = to.pool.datasets();
        let attempt = |stream: &[u8]| {
            forge(&file, stream);
            import_trusting(to, &file, &Trust::Anyone)
        };
        let mut changed = good.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        for (what, stream) in [
            ("one with properties", &send(&["send", "-R", &snapshot])[..]),
            ("none", b"no stream at all, but long enough to be read as one".repeat(20).as_slice()),
            ("an empty one", b""),
            ("half of one", &good[..good.len() / 2]),
            ("a changed one", &changed),
        ] {
            attempt(stream).expect_err(what);
            assert_eq!(to.pool.datasets(), before, "{what} left something");
        }
        attempt(&good).unwrap();
        remove(to, &layers);
        remove(from, &layers);
    });
}

#[test]
fn a_crash_in_an_import_leaves_nothing_after_recovery() {
    each(128, |fixture| {
        let layers = chain(&["base", "top"]);
        fixture.load(&layers[0], "base", 1);
        fixture.load(&layers[1], "top", 1);
        let [base, top] = [0, 1].map(|i| fixture.dataset(&format!("layers/{}", layers[i].chain_id.hex())));
        let [one, two] =
            [0, 1].map(|i| fixture.dataset(&format!("staging/fj.{}.0000000{i}", layers[i].chain_id.hex())));
        // Received and not labelled; the base is received too, for a layer that is to stand alone.
        for (arguments, to) in [
            (vec!["send".to_owned(), format!("{base}@layer")], &one),
            (vec!["send".to_owned(), "-i".to_owned(), format!("{base}@layer"), format!("{top}@layer")], &two),
        ] {
            let mut send = Command::new("zfs").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
            let stdin = send.stdout.take().unwrap();
            let received = Command::new("zfs").args(["receive", &format!("{to}@layer")]).stdin(stdin).status().unwrap();
            assert!(received.success() && send.wait().unwrap().success());
        }
        // Half detached.
        let third = fixture.dataset(&format!("staging/fj.{}.00000003", layers[1].chain_id.hex()));
        zfs(&["clone", "-o", "canmount=noauto", &format!("{one}@layer"), &third]);
        zfs(&["rename", &format!("{one}@layer"), &format!("{one}@below0")]);
        zfs(&["promote", &third]);
        fixture.storage.recover().unwrap();
        assert_eq!(fixture.storage.inventory().unwrap().layers.len(), 2);
        remove(fixture, &layers);
    });
}

#[test]
fn an_import_into_a_full_pool_leaves_nothing() {
    each(192, |from| {
        let Some(to) = Fixture::new(64, from.style) else { return };
        let layers = chain(&["base", "big"]);
        from.load(&layers[0], "base", 1);
        from.load(&layers[1], "big", 80);
        let file = export(from, &layers);
        let before = to.pool.datasets();
        let fault = import(&to, &file).unwrap_err();
        assert_eq!(fault.kind(), Kind::Exhausted, "{fault}");
        assert_eq!(to.pool.datasets(), before);
        to.finish();
        remove(from, &layers);
    });
}

/// Answers one request after the other until it is dropped.
fn serve(responses: Vec<Vec<u8>>) -> (String, std::thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image.tar", listener.local_addr().unwrap());
    let answer = move || {
        for response in responses {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            connection.write_all(&response).unwrap();
        }
    };
    (url, std::thread::spawn(answer))
}

#[test]
fn an_archive_comes_by_http() {
    each_pair(128, |from, to| {
        let layers = chain(&["base"]);
        from.load(&layers[0], "base", 1);
        let body = std::fs::read(export(from, &layers)).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        let whole = [head.as_bytes(), &body].concat();
        let missing = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec();
        let (url, server) = serve(vec![missing, whole[..whole.len() / 2].to_vec(), whole]);
        let before = (to.pool.datasets(), std::fs::read_dir(to.pool.dir()).unwrap().count());
        let attempt = |url: &str| {
            let remote = fetch(url)?;
            take(to, keep(remote.body, remote.length, &to.pool.dir())?, &trusted())
        };
        assert_eq!(attempt(&url).unwrap_err().kind(), Kind::NotFound);
        assert!(attempt(&url).unwrap_err().to_string().contains("broke off"));
        assert_eq!((to.pool.datasets(), std::fs::read_dir(to.pool.dir()).unwrap().count()), before);
        attempt(&url).unwrap();
        server.join().unwrap();
        assert_eq!(attempt("https://example.com/x").unwrap_err().kind(), Kind::Invalid);
        assert_root(to, &layers, &["base"]);
        assert_eq!(std::fs::read_dir(to.pool.dir()).unwrap().count(), before.1, "a temporary file is left");
        remove(to, &layers);
        remove(from, &layers);
    });
}

#[test]
fn an_export_that_fails_leaves_no_file() {
    each(128, |fixture| {
        let layers = chain(&["base"]);
        let file = fixture.pool.dir().join("image.tar");
        let fault = fixture.storage.export(&image(&layers), &file, &Export::default()).unwrap_err();
        assert_eq!(fault.kind(), Kind::NotFound);
        fixture.load(&layers[0], "base", 1);
        let other = chain(&["other"]);
        let above = Export { above: Some(&other[0]), ..Export::default() };
        assert_eq!(fixture.storage.export(&image(&layers), &file, &above).unwrap_err().kind(), Kind::Invalid);
        let nowhere = fixture.pool.dir().join("nowhere/image.tar");
        let fault = fixture.storage.export(&image(&layers), &nowhere, &Export::default()).unwrap_err();
        assert!(fault.to_string().contains("nowhere"), "{fault}");
        let files = std::fs::read_dir(fixture.pool.dir()).unwrap().map(|e| e.unwrap().file_name());
        let mut files: Vec<_> = files.collect();
        files.sort();
        assert_eq!(files, ["m", "vdev"]);
        remove(fixture, &layers);
    });
}
