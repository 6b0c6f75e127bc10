//! Images that lie, break rules or are broken: refused in one sentence, and nothing of them stays.

use std::path::Path;

use serde_json::json;
use tar::EntryType;

use crate::needs_root;
use crate::support::Daemon;
use crate::support::image::{Archive, Image, Layer, digest};
use crate::support::images::{PROBE, probe_image};
use crate::support::registry::{Access, Registry};

/// Loads an archive that must be refused, and checks that nothing of it stayed.
#[track_caller]
fn refused(daemon: &Daemon, what: &str, archive: Vec<u8>, tag: &str) -> String {
    let layers = |d: &Daemon| std::fs::read_dir(d.root.join("layers")).map_or(0, Iterator::count);
    let before = layers(daemon);
    let answer = daemon.http.request("POST", "/system/images/load").body(archive).send();
    let text = answer.text();
    assert_eq!(answer.status, 400, "{what}: {text}");
    assert!(text.trim().len() > 10 && !text.contains("panicked") && !text.contains("Error {"), "{what}: {text}");
    let listed = String::from_utf8_lossy(&daemon.run(&["image", "ls"]).stdout).into_owned();
    assert!(!listed.contains(tag), "{what} is listed: {listed}");
    assert!(layers(daemon) <= before + 2, "{what}: layers stayed");
    text
}

#[test]
fn things_that_are_no_images_are_refused() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let whole = probe_image().docker_save("example.test/cut:1");
    let mut empty_manifest = Archive::new();
    empty_manifest.add("manifest.json", b"[]");
    let mut bad_manifest = Archive::new();
    bad_manifest.add("manifest.json", b"{{{");
    let mut no_layer = Archive::new();
    no_layer
        .add("manifest.json", br#"[{"Config":"c.json","RepoTags":["example.test/no:1"],"Layers":["gone/layer.tar"]}]"#);
    no_layer.add(
        "c.json",
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}"#,
    );
    let mut nested = Archive::new();
    nested.add("index.json", br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":1}]}"#);
    nested.add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    for (what, archive) in [
        ("nothing", Vec::new()),
        ("text", b"this is no archive".to_vec()),
        ("zeroes", vec![0; 10_240]),
        ("an archive cut short", whole[..whole.len() / 2].to_vec()),
        ("an archive without manifest", Archive::new().finish()),
        ("an empty manifest", empty_manifest.finish()),
        ("a broken manifest", bad_manifest.finish()),
        ("a missing layer", no_layer.finish()),
        ("a missing index", nested.finish()),
    ] {
        refused(&daemon, what, archive, "example.test/");
    }
}

#[test]
fn a_layer_whose_content_is_not_what_its_digest_says_is_refused() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let mut image = probe_image();
    image.claimed_diff_ids = Some(vec![digest(b"a lie"), digest(b"another")]);
    refused(&daemon, "false diff-ids", image.docker_save("example.test/lie:1"), "example.test/lie");
    let mut image = probe_image();
    image.layers[1].gz[100] ^= 1;
    refused(&daemon, "a damaged blob", image.oci_archive("example.test/lie:1"), "example.test/lie");
    let mut image = probe_image();
    image.claimed_diff_ids = Some(vec![image.layers[0].diff_id.clone()]);
    refused(&daemon, "fewer diff-ids than layers", image.docker_save("example.test/lie:1"), "example.test/lie");
}

/// Each of these tries to reach a file outside of the image's tree.
#[test]
fn layers_that_reach_outside_of_their_root_are_refused_or_contained() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let target = daemon.scratch().join("outside");
    let outside = target.display().to_string();
    std::fs::write(&target, "untouched").expect("writing the target");
    let up = "../".repeat(20);
    let file = |path: &str| Layer::new().file(path, 0o644, b"owned");
    let cases: Vec<(&str, Layer)> = vec![
        ("a path with ..", file(&format!("{up}{}", outside.trim_start_matches('/')))),
        ("an absolute path", file(&outside)),
        (
            "a file through an absolute link",
            Layer::new().symlink("way", &parent(&target)).file("way/outside", 0o644, b"owned"),
        ),
        (
            "a file through a relative link",
            Layer::new().symlink("way", &format!("{up}{}", parent(&target).trim_start_matches('/'))).file(
                "way/outside",
                0o644,
                b"owned",
            ),
        ),
        ("a hard link to the outside", Layer::new().hardlink("in", &outside).file("in", 0o644, b"owned")),
        (
            "a hard link with ..",
            Layer::new()
                .hardlink("in", &format!("{up}{}", outside.trim_start_matches('/')))
                .file("in", 0o644, b"owned"),
        ),
        ("a whiteout of ..", Layer::new().file(".wh...", 0o644, b"")),
        ("a whiteout of .", Layer::new().file("etc/.wh..", 0o644, b"")),
        (
            "a whiteout through a link",
            Layer::new().symlink("way", &parent(&target)).file("way/.wh.outside", 0o644, b""),
        ),
        (
            "an opaque mark through a link",
            Layer::new().symlink("way", &parent(&target)).file("way/.wh..wh..opq", 0o644, b""),
        ),
        (
            "a link over itself and then through it",
            Layer::new().symlink("way", &parent(&target)).directory("way/sub", 0o755),
        ),
    ];
    for (i, (what, layer)) in cases.into_iter().enumerate() {
        let archive = probe_image().layer(layer).docker_save(&format!("example.test/evil:{i}"));
        let answer = daemon.http.request("POST", "/system/images/load").body(archive).send();
        assert!([200, 400].contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
        assert_eq!(std::fs::read_to_string(&target).expect("the target is there"), "untouched", "{what}");
        assert!(!target.parent().expect("a parent").join("sub").exists(), "{what} made a directory outside");
    }
    daemon.load(&probe_image().docker_save(PROBE));
    daemon.deploy(json!({"service": "f"}));
}

fn parent(path: &Path) -> String {
    path.parent().expect("a parent").display().to_string()
}

#[test]
fn device_nodes_do_not_survive() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let layer = Layer::new().entry("dev-kmem", EntryType::Char, 0o666, (0, 0), "", b"").entry(
        "dev-disk",
        EntryType::Block,
        0o666,
        (0, 0),
        "",
        b"",
    );
    let archive = probe_image().layer(layer).docker_save("example.test/dev:1");
    let answer = daemon.http.request("POST", "/system/images/load").body(archive).send();
    if answer.status == 200 {
        daemon.deploy(json!({"service": "f", "image": "example.test/dev:1"}));
        for name in ["dev-kmem", "dev-disk"] {
            assert_eq!(daemon.call(&format!("f/files?path=/{name}")).status, 500, "{name} can be opened");
        }
    } else {
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains("dev-"), "{}", answer.text());
    }
}

#[test]
fn an_image_for_another_platform_is_refused_by_name() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let archive = probe_image().platform("windows", "s390x").docker_save("example.test/foreign:1");
    let answer = daemon.http.request("POST", "/system/images/load").body(archive).send();
    let answer = match answer.status {
        200 => daemon.create(json!({"service": "f", "image": "example.test/foreign:1"})),
        _ => answer,
    };
    answer.expect_error(400, &["windows"]);
}

#[test]
fn an_image_without_a_program_is_refused_in_words() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let nothing = Image::new().layer(Layer::new().file("x", 0o644, b"x"));
    let archive = nothing.docker_save("example.test/empty:1");
    let answer = daemon.http.request("POST", "/system/images/load").body(archive).send();
    let answer = match answer.status {
        200 => daemon.create(json!({"service": "f", "image": "example.test/empty:1"})),
        _ => answer,
    };
    answer.expect_error(400, &["example.test/empty:1"]);
    for (i, entrypoint) in ["/not/there", "/etc/passwd", "notinpath"].into_iter().enumerate() {
        let tag = format!("example.test/wrong:{i}");
        daemon.load(&probe_image().set("Entrypoint", json!([entrypoint])).docker_save(&tag));
        let answer = daemon.create(json!({"service": "f", "image": tag}));
        assert!((400..=599).contains(&answer.status) && answer.text().contains(entrypoint), "{}", answer.text());
    }
    assert!(daemon.list("openfaas-fn").is_empty());
    let traces = daemon.traces();
    assert!(traces.no_replica(), "{traces}");
}

#[test]
fn a_registry_that_serves_other_bytes_than_promised_is_not_believed() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    let image = probe_image();
    registry.push("team/probe", "1", &image);
    let blob = registry.blob_file(&image.layers[1].digest);
    let mut bytes = std::fs::read(&blob).expect("the blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&blob, bytes).expect("damaging the blob");
    let daemon = Daemon::with()
        .images(&format!("pull = \"always\"\ninsecure_registries = [\"{}\"]", registry.address))
        .without_images()
        .start();
    let name = registry.name("team/probe", "1");
    let answer = daemon.create(json!({"service": "f", "image": name}));
    assert!((400..=599).contains(&answer.status), "{}", answer.status);
    assert!(answer.text().contains(&name), "{}", answer.text());
    // Once the registry is whole again, the same deploy works: nothing wrong was kept.
    std::fs::write(&blob, &image.layers[1].gz).expect("repairing the blob");
    daemon.deploy(json!({"service": "f", "image": name}));
}
