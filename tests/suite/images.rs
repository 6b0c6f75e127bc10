//! Images: archives in every form, a real registry, layers, tags that move.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::image::{Image, Layer, architecture, digest};
use crate::support::images::{PROBE, PROBE_ROOT, probe_archive, probe_image};
use crate::support::registry::{Access, PASSWORD, Registry, USER};
use crate::support::{Daemon, eventually, parts};
use crate::{linux_only, needs_root};

/// A daemon that may speak plain http with this registry.
fn with_registry(registry: &Registry, pull: &str) -> Daemon {
    Daemon::with()
        .images(&format!("pull = \"{pull}\"\ninsecure_registries = [\"{}\"]", registry.address))
        .without_images()
        .start()
}

/// The probe's image with a file that tells versions apart.
fn version(text: &str) -> Image {
    probe_image().layer(Layer::new().directory("etc", 0o755).file("etc/version", 0o644, text.as_bytes()))
}

fn deployed_version(daemon: &Daemon, name: &str) -> String {
    daemon.call(&format!("{name}/files?path=/etc/version")).text()
}

#[test]
fn a_docker_save_archive_an_oci_archive_and_an_oci_layout_are_loaded_and_run() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let image = version("1");
    let loaded = daemon.load(&image.docker_save("example.test/saved:1")).value();
    assert!(loaded.to_string().contains("example.test/saved:1"), "{loaded}");
    daemon.load(&image.oci_archive("example.test/archived:1"));
    let layout = daemon.scratch().join("layout");
    image.oci_layout("example.test/laidout:1", &layout);
    let out = daemon.run(&["image", "load", &layout.display().to_string()]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for name in ["saved", "archived", "laidout"] {
        daemon.deploy(json!({"service": name, "image": format!("example.test/{name}:1")}));
        assert_eq!(deployed_version(&daemon, name), "1");
    }
}

#[test]
fn the_command_line_loads_from_a_file_and_from_standard_input_and_lists_and_removes() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let file = daemon.scratch().join("image.tar");
    std::fs::write(&file, version("1").docker_save("example.test/file:1")).expect("writing the archive");
    let out = daemon.run(&["image", "load", &file.display().to_string()]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains("example.test/file:1"));
    let out = daemon.run_with_input(&["image", "load", "-"], &version("2").oci_archive("example.test/piped:1"));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let listed = String::from_utf8_lossy(&daemon.run(&["image", "ls"]).stdout).into_owned();
    assert!(listed.contains("example.test/file:1") && listed.contains("example.test/piped:1"), "{listed}");
    // The running daemon sees what another process of the program loaded.
    daemon.deploy(json!({"service": "f", "image": "example.test/piped:1"}));
    assert_eq!(deployed_version(&daemon, "f"), "2");
    assert!(daemon.run(&["image", "rm", "example.test/file:1"]).status.success());
    let listed = String::from_utf8_lossy(&daemon.run(&["image", "ls"]).stdout).into_owned();
    assert!(!listed.contains("example.test/file:1") && listed.contains("example.test/piped:1"), "{listed}");
    assert!(!daemon.run(&["image", "rm", "example.test/file:1"]).status.success());
    daemon.create(json!({"service": "g", "image": "example.test/file:1"})).expect_error(400, &["example.test/file:1"]);
}

#[test]
fn compressed_archives_are_loaded_too() {
    needs_root!();
    use std::io::Write;
    let daemon = Daemon::with().without_images().start();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&version("z").docker_save("example.test/gz:1")).expect("compressing");
    daemon.load(&gz.finish().expect("compressing"));
    daemon.deploy(json!({"service": "f", "image": "example.test/gz:1"}));
    assert_eq!(deployed_version(&daemon, "f"), "z");
}

#[test]
fn upper_layers_replace_remove_and_hide_what_lower_ones_have() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let image = probe_image()
        .layer(
            Layer::new()
                .directory("data", 0o755)
                .file("data/replaced", 0o644, b"old")
                .file("data/removed", 0o644, b"old")
                .directory("data/hidden", 0o755)
                .file("data/hidden/below", 0o644, b"old")
                .directory("data/tree", 0o755)
                .file("data/tree/leaf", 0o644, b"old")
                .hardlink("data/linked", "data/replaced")
                .symlink("data/alias", "replaced"),
        )
        .layer(
            Layer::new()
                .directory("data", 0o755)
                .file("data/replaced", 0o644, b"new")
                .whiteout("data/removed")
                .whiteout("data/tree")
                .directory("data/hidden", 0o755)
                .opaque("data/hidden")
                .file("data/hidden/above", 0o644, b"new"),
        );
    daemon.load(&image.docker_save("example.test/layers:1"));
    daemon.deploy(json!({"service": "f", "image": "example.test/layers:1"}));
    let names = |path: &str| daemon.call(&format!("f/list?path={path}")).expect(200).value();
    assert_eq!(names("/data"), json!(["alias", "hidden", "linked", "replaced"]));
    assert_eq!(names("/data/hidden"), json!(["above"]));
    let content = |path: &str| daemon.call(&format!("f/files?path={path}")).expect(200).text();
    assert_eq!(content("/data/replaced"), "new");
    assert_eq!(content("/data/alias"), "new");
    assert_eq!(content("/data/linked"), "old");
}

#[test]
fn owners_and_modes_of_files_are_kept_but_not_their_privileges() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let image = probe_image().layer(
        Layer::new()
            .owned_file("home/probe/own", 0o600, (1000, 1000), b"mine")
            .file("home/probe/foreign", 0o600, b"root's")
            .file("su", 0o4755, parts::probe()),
    );
    daemon.load(&image.docker_save("example.test/owners:1"));
    daemon.deploy(json!({"service": "f", "image": "example.test/owners:1"}));
    assert_eq!(daemon.call("f/files?path=/home/probe/own").expect(200).text(), "mine");
    daemon.call("f/files?path=/home/probe/foreign").expect_error(500, &["permission denied"]);
    daemon.deploy(json!({"service": "g", "image": "example.test/owners:1"}));
    let mounts = daemon.call("f/mounts").expect(200).text();
    let root = mounts.lines().find(|l| l.split(' ').nth(1) == Some("/")).expect("a root");
    assert!(root.contains("nosuid"), "{root}");
}

#[test]
fn entrypoint_and_cmd_are_joined_and_a_relative_program_is_looked_up_in_path() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let image = probe_image()
        .layer(Layer::new().directory("opt", 0o755).file("opt/probe", 0o755, parts::probe()))
        .set("Entrypoint", json!(["probe", "one"]))
        .set("Cmd", json!(["two", "three words"]))
        .set("Env", json!(["PATH=/nowhere:/opt"]));
    daemon.load(&image.docker_save("example.test/args:1"));
    daemon.deploy(json!({"service": "f", "image": "example.test/args:1"}));
    assert_eq!(daemon.identity("f")["args"], json!(["probe", "one", "two", "three words"]));
}

#[test]
fn users_of_every_form_are_resolved_against_the_images_own_files() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    for (i, (user, uid, gid)) in [
        ("probe", 1000, 1000),
        ("1000", 1000, 1000),
        ("12345:54321", 12345, 54321),
        ("probe:extra", 1000, 2000),
        ("777", 777, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let (tag, name) = (format!("example.test/user:{i}"), format!("f{i}"));
        daemon.load(&probe_image().set("User", json!(user)).docker_save(&tag));
        daemon.deploy(json!({"service": name, "image": tag}));
        let id = daemon.identity(&name);
        assert_eq!((&id["uid"], &id["gid"]), (&json!(uid), &json!(gid)), "{user}");
    }
    let archive = probe_image().set("User", json!("nobody-here")).docker_save("example.test/user:x");
    let answer = daemon.http.request("POST", "/system/images/load").body(archive).send();
    answer.expect_error(400, &["nobody-here", "example.test/user:x"]);
}

#[test]
fn a_deploy_pulls_from_a_registry() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    registry.push("team/probe", "1", &version("pulled"));
    let daemon = with_registry(&registry, "always");
    let image = registry.name("team/probe", "1");
    daemon.deploy(json!({"service": "f", "image": image}));
    assert_eq!(deployed_version(&daemon, "f"), "pulled");
    assert_eq!(daemon.status("f")["image"], json!(image));
    let listed = String::from_utf8_lossy(&daemon.run(&["image", "ls"]).stdout).into_owned();
    assert!(listed.contains(&image), "{listed}");
}

#[test]
fn the_command_line_pulls_ahead_of_a_deploy() {
    needs_root!();
    let mut registry = Registry::start(Access::Anonymous);
    registry.push("team/probe", "1", &version("ahead"));
    let daemon = with_registry(&registry, "if-not-present");
    let image = registry.name("team/probe", "1");
    let out = daemon.run(&["image", "pull", &image]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    registry.stop();
    daemon.deploy(json!({"service": "f", "image": image}));
    assert_eq!(deployed_version(&daemon, "f"), "ahead");
}

#[test]
fn a_moved_tag_is_picked_up_by_the_next_update_where_pull_is_always_and_not_elsewhere() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    let image = registry.name("team/probe", "latest");
    for (pull, second) in [("always", "2"), ("if-not-present", "1")] {
        registry.push("team/probe", "latest", &version("1"));
        let daemon = with_registry(&registry, pull);
        daemon.deploy(json!({"service": "f", "image": image}));
        registry.push("team/probe", "latest", &version("2"));
        daemon.update(json!({"service": "f", "image": image})).expect(202);
        eventually(&format!("{pull} runs version {second}"), || {
            (deployed_version(&daemon, "f") == second).then_some(())
        });
    }
}

#[test]
fn an_image_is_pulled_by_digest_and_the_digest_is_checked() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    let manifest = registry.push("team/probe", "1", &version("exact"));
    registry.push("team/probe", "1", &version("moved"));
    let daemon = with_registry(&registry, "always");
    let image = format!("{}/team/probe@{manifest}", registry.address);
    daemon.deploy(json!({"service": "f", "image": image}));
    assert_eq!(deployed_version(&daemon, "f"), "exact");
    let wrong = format!("{}/team/probe@{}", registry.address, digest(b"something else"));
    daemon.create(json!({"service": "g", "image": wrong})).expect_error(400, &[&wrong]);
}

#[test]
fn of_a_multi_platform_index_the_own_platform_is_taken() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    let (own, other) = (version("own"), version("other").platform("linux", "s390x"));
    registry.push("team/probe", "own", &own);
    registry.push("team/probe", "other", &other);
    let entry = |image: &Image, os: &str, architecture: &str| {
        let manifest = image.manifest();
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&manifest), "size": manifest.len(),
            "platform": {"os": os, "architecture": architecture},
        })
    };
    let index = "application/vnd.oci.image.index.v1+json";
    let both = json!({
        "schemaVersion": 2, "mediaType": index,
        "manifests": [entry(&other, "linux", "s390x"), entry(&own, std::env::consts::OS, architecture())],
    });
    registry.push_manifest("team/probe", "both", index, both.to_string().into_bytes());
    let foreign = json!({"schemaVersion": 2, "mediaType": index, "manifests": [entry(&other, "linux", "s390x")]});
    registry.push_manifest("team/probe", "foreign", index, foreign.to_string().into_bytes());
    let daemon = with_registry(&registry, "always");
    daemon.deploy(json!({"service": "f", "image": registry.name("team/probe", "both")}));
    assert_eq!(deployed_version(&daemon, "f"), "own");
    let answer = daemon.create(json!({"service": "g", "image": registry.name("team/probe", "foreign")}));
    answer.expect_error(400, &["s390x"]);
}

#[test]
fn a_registry_with_passwords_is_entered_with_those_of_the_docker_config() {
    needs_root!();
    use base64::Engine as _;
    let registry = Registry::start(Access::Password);
    registry.push("team/probe", "1", &version("private"));
    let image = registry.name("team/probe", "1");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("config.json");
    let daemon_with = |user: &str, password: &str| {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let auths = BTreeMap::from([(registry.address.to_string(), json!({"auth": auth}))]);
        std::fs::write(&config, json!({"auths": auths}).to_string()).expect("writing config.json");
        Daemon::with()
            .images(&format!(
                "pull = \"always\"\ninsecure_registries = [\"{}\"]\ndocker_config = \"{}\"",
                registry.address,
                config.display()
            ))
            .without_images()
            .start()
    };
    let daemon = daemon_with(USER, PASSWORD);
    daemon.deploy(json!({"service": "f", "image": image}));
    assert_eq!(deployed_version(&daemon, "f"), "private");
    let daemon = daemon_with(USER, "wrong");
    let answer = daemon.create(json!({"service": "f", "image": image})).expect_error(400, &[&image]);
    assert!(!answer.text().contains("wrong"), "the password is in the answer: {}", answer.text());
    assert!(!daemon.log().contains("wrong"), "the password is in the log");
}

#[test]
fn a_registry_with_passwords_and_none_given_is_400_and_says_so() {
    needs_root!();
    let registry = Registry::start(Access::Password);
    registry.push("team/probe", "1", &version("private"));
    let daemon = with_registry(&registry, "always");
    let image = registry.name("team/probe", "1");
    daemon.create(json!({"service": "f", "image": image})).expect_error(400, &[&image]);
}

#[test]
fn a_tag_that_the_registry_does_not_have_is_400_and_named() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    registry.push("team/probe", "1", &version("1"));
    let daemon = with_registry(&registry, "always");
    for (repository, tag) in [("team/probe", "2"), ("team/nothing", "1")] {
        let image = registry.name(repository, tag);
        daemon.create(json!({"service": "f", "image": image})).expect_error(400, &[&image]);
    }
}

#[test]
fn functions_survive_a_restart_of_the_daemon_without_their_registry() {
    needs_root!();
    let mut registry = Registry::start(Access::Anonymous);
    registry.push("team/probe", "1", &version("kept"));
    let mut daemon = with_registry(&registry, "always");
    let image = registry.name("team/probe", "1");
    daemon.deploy(json!({"service": "f", "image": image}));
    registry.stop();
    daemon.kill9();
    assert!(daemon.run(&["purge"]).status.success());
    daemon.start_again();
    daemon.await_ready("f", 1);
    assert_eq!(deployed_version(&daemon, "f"), "kept");
    // An update makes do with what is here, and the log says so.
    daemon.update(json!({"service": "f", "image": image})).expect(202);
    assert_eq!(deployed_version(&daemon, "f"), "kept");
    assert!(daemon.log().contains("registry can't be asked"), "{}", daemon.log());
}

#[test]
fn layers_that_two_images_share_are_fetched_once() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    registry.push("team/one", "1", &version("one"));
    let two = version("two");
    registry.push("team/two", "1", &two);
    let daemon = with_registry(&registry, "always");
    daemon.deploy(json!({"service": "one", "image": registry.name("team/one", "1")}));
    // The shared layers are gone from the registry: only the new one can come from there.
    for layer in &two.layers[..two.layers.len() - 1] {
        std::fs::remove_file(registry.blob_file(&layer.digest)).expect("removing a blob");
    }
    daemon.deploy(json!({"service": "two", "image": registry.name("team/two", "1")}));
    assert_eq!(deployed_version(&daemon, "two"), "two");
}

#[test]
fn ten_deploys_of_one_image_at_once_all_succeed() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    registry.push("team/probe", "1", &version("1"));
    let daemon = with_registry(&registry, "always");
    let image = registry.name("team/probe", "1");
    std::thread::scope(|scope| {
        for i in 0..10 {
            let (daemon, image) = (&daemon, &image);
            scope.spawn(move || daemon.deploy(json!({"service": format!("f{i}"), "image": image})));
        }
    });
    assert_eq!(daemon.list("openfaas-fn").len(), 10);
}

#[test]
fn short_names_mean_what_docker_means_by_them() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    daemon.load(&version("hub").docker_save("docker.io/library/short:latest"));
    for (i, image) in ["short", "short:latest", "library/short", "docker.io/short"].into_iter().enumerate() {
        let name = format!("f{i}");
        daemon.deploy(json!({"service": name, "image": image}));
        assert_eq!(deployed_version(&daemon, &name), "hub");
        assert_eq!(daemon.status(&name)["image"], json!(image), "echoed as it was written");
    }
}

#[test]
fn images_survive_a_restart_of_the_daemon() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.kill9();
    daemon.start_again();
    daemon.deploy(json!({"service": "f"}));
    assert_eq!(daemon.call("f").expect(200).value()["path"], "/");
}

#[test]
fn an_image_that_a_function_uses_can_be_forgotten_and_the_function_goes_on() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    assert!(daemon.run(&["image", "rm", PROBE]).status.success());
    assert!(daemon.run(&["image", "prune"]).status.success());
    daemon.call("f").expect(200);
    daemon.scale("f", 2).expect(202);
    daemon.await_ready("f", 2);
    daemon.kill9();
    assert!(daemon.run(&["purge"]).status.success());
    daemon.start_again();
    daemon.await_ready("f", 2);
}

#[test]
fn prune_frees_what_no_function_uses() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    let count = || daemon.layers();
    let few = count();
    daemon.load(&version("unused").docker_save("example.test/unused:1"));
    assert!(count() > few);
    let told = String::from_utf8_lossy(&daemon.run(&["image", "prune"]).stdout).into_owned();
    assert!(told.contains("example.test/unused:1") && !told.contains(PROBE), "{told}");
    assert_eq!(count(), few);
    daemon.deploy(json!({"service": "g"}));
}

/// Values come back as JSON from the load: name and digest of each image in the archive.
#[test]
fn loading_answers_with_names_and_digests() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let image = version("1");
    let loaded = daemon.load(&image.oci_archive("example.test/x:1")).value();
    let first = loaded.as_array().and_then(|a| a.first()).unwrap_or(&Value::Null).clone();
    assert_eq!((&first["name"], &first["digest"]), (&json!("example.test/x:1"), &json!(digest(&image.manifest()))));
}

/// As `docker login` writes it, in a secret that the function names.
#[test]
fn a_registry_with_passwords_is_entered_with_those_of_a_secret_of_the_function() {
    needs_root!();
    use base64::Engine as _;
    let registry = Registry::start(Access::Password);
    registry.push("team/probe", "1", &version("private"));
    let daemon = with_registry(&registry, "always");
    let image = registry.name("team/probe", "1");
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let auths = BTreeMap::from([(registry.address.to_string(), json!({"auth": auth}))]);
    for (name, value) in [("registry", json!({"auths": auths}).to_string()), ("other", "no JSON at all".to_owned())] {
        daemon.http.json("POST", "/system/secrets", &json!({"name": name, "value": value})).expect(202);
    }
    daemon.create(json!({"service": "f", "image": image, "secrets": ["other"]})).expect_error(400, &[&image]);
    daemon.deploy(json!({"service": "f", "image": image, "secrets": ["other", "registry"]}));
    assert_eq!(deployed_version(&daemon, "f"), "private");
}

#[test]
fn an_annotation_chooses_another_platform_of_an_index() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    // The same programs under another label: what matters is which one is taken.
    let other = version("other").platform("linux", "s390x");
    registry.push("team/probe", "own", &version("own"));
    registry.push("team/probe", "other", &other);
    let index = "application/vnd.docker.distribution.manifest.list.v2+json";
    let entry = |image: &Image, os: &str, architecture: &str| {
        let manifest = image.manifest();
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&manifest), "size": manifest.len(),
            "platform": {"os": os, "architecture": architecture},
        })
    };
    let entries = [entry(&version("own"), std::env::consts::OS, architecture()), entry(&other, "linux", "s390x")];
    let list = json!({"schemaVersion": 2, "mediaType": index, "manifests": entries});
    registry.push_manifest("team/probe", "both", index, list.to_string().into_bytes());
    let daemon = with_registry(&registry, "always");
    let image = registry.name("team/probe", "both");
    daemon.deploy(json!({"service": "f", "image": image}));
    assert_eq!(deployed_version(&daemon, "f"), "own");
    let chosen = json!({"com.faas-jails.platform": "linux/s390x"});
    if cfg!(target_os = "linux") {
        daemon.update(json!({"service": "f", "image": image, "annotations": chosen})).expect(202);
        eventually("the other one runs", || (deployed_version(&daemon, "f") == "other").then_some(()));
    }
    let neither = json!({"com.faas-jails.platform": "linux/riscv64"});
    let answer = daemon.create(json!({"service": "g", "image": image, "annotations": neither}));
    answer.expect_error(400, &["linux/riscv64", "s390x"]);
}

#[test]
fn a_manifest_in_dockers_own_words_is_pulled() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    let image = version("docker");
    registry.push("team/probe", "oci", &image);
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = String::from_utf8(image.manifest()).expect("JSON is text");
    let manifest = manifest
        .replace("application/vnd.oci.image.manifest.v1+json", docker)
        .replace("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
        .replace("application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip");
    registry.push_manifest("team/probe", "docker", docker, manifest.into_bytes());
    let daemon = with_registry(&registry, "always");
    daemon.deploy(json!({"service": "f", "image": registry.name("team/probe", "docker")}));
    assert_eq!(deployed_version(&daemon, "f"), "docker");
}

#[test]
fn on_a_terminal_a_pull_shows_bytes_layers_and_rate() {
    needs_root!();
    linux_only!("runs script(1) as Linux has it");
    let registry = Registry::start(Access::Anonymous);
    registry.push("team/probe", "1", &version("1"));
    let daemon = with_registry(&registry, "always");
    let command = daemon.command();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| word.display().to_string()).collect();
    let pull = format!("stty cols 120 rows 40; {} image pull {}", words.join(" "), registry.name("team/probe", "1"));
    let terminal = std::process::Command::new("script").args(["-qec", &pull, "/dev/null"]).output().expect("script");
    let shown = String::from_utf8_lossy(&terminal.stdout).into_owned();
    assert!(terminal.status.success(), "{shown}");
    assert!(shown.contains("3 of 3 layers") && shown.contains("iB/s") && shown.contains("pulled "), "{shown}");
    let quiet = daemon.run(&["image", "pull", &registry.name("team/probe", "1")]);
    assert!(quiet.stderr.is_empty(), "{}", String::from_utf8_lossy(&quiet.stderr));
}

#[test]
fn inspect_shows_how_an_image_runs() {
    needs_root!();
    let daemon = Daemon::start();
    let shown: Value = serde_json::from_slice(&daemon.run(&["image", "inspect", PROBE]).stdout).expect("JSON");
    assert_eq!((&shown["reference"], &shown["run"]["argv"]), (&json!(PROBE), &json!(["/probe"])));
    assert_eq!(shown["layers"].as_array().map(Vec::len), Some(2));
    let unknown = daemon.run(&["image", "inspect", "example.test/none:1"]);
    assert_eq!(unknown.status.code(), Some(66));
}

#[test]
fn a_limit_on_the_disk_is_refused_where_it_cannot_be_kept() {
    needs_root!();
    linux_only!("is about overlay storage");
    let daemon = Daemon::with().set("storage = \"overlay\"").start();
    let limit = json!({"com.faas-jails.disk": "8Mi"});
    let answer = daemon.create(json!({"service": "f", "annotations": limit}));
    answer.expect_error(400, &["overlay storage cannot limit", "zfs"]);
    let traces = daemon.traces();
    assert!(traces.no_replica(), "{traces}");
    daemon.deploy(json!({"service": "f", "annotations": limit, "readOnlyRootFilesystem": true}));
}

#[test]
fn an_update_to_another_image_runs_the_other_image() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.load(&probe_image().set("User", json!("root")).docker_save(PROBE_ROOT));
    daemon.deploy(json!({"service": "f"}));
    assert_eq!(daemon.identity("f")["uid"], 1000);
    daemon.update(json!({"service": "f", "image": PROBE_ROOT})).expect(202);
    assert_eq!(daemon.identity("f")["uid"], 0);
    assert_eq!(daemon.status("f")["image"], PROBE_ROOT);
}

/// An upload is not read to its end before the credentials are looked at.
#[test]
fn an_image_upload_without_credentials_is_refused() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:pw").without_images().start();
    let client = Client::new(daemon.http.address);
    let archive = probe_archive(PROBE);
    match client.request("POST", "/system/images/load").body(archive).try_send() {
        Ok(answer) => assert_eq!(answer.status, 401),
        // The daemon may close while the client still writes.
        Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)), "{error}"),
    }
    assert!(daemon.http.json("POST", "/system/functions", &json!({"service": "x", "image": PROBE})).status >= 400);
}
