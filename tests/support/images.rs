//! The images that tests deploy, each made once per run, as docker-save archives.

use std::fs;
use std::sync::OnceLock;

use serde_json::json;

use super::image::{Image, Layer};
use super::{parts, platform};

/// The probe alone, run by user 1000, in two layers.
pub const PROBE: &str = "example.test/probe:1";
/// The same, run by root.
pub const PROBE_ROOT: &str = "example.test/probe-root:1";
/// A few programs behind the stock classic watchdog.
pub const CLASSIC: &str = "example.test/tools-classic:1";
/// The probe behind the stock of-watchdog in http mode.
pub const OF_WATCHDOG: &str = "example.test/probe-of-watchdog:1";

/// Users and the directories that programs expect.
pub fn base_layer() -> Layer {
    Layer::new()
        .directory("etc", 0o755)
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\nprobe:x:1000:1000:probe:/home/probe:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\nprobe:x:1000:\nextra:x:2000:probe\n")
        .directory("tmp", 0o1777)
        .directory("home", 0o755)
        .entry("home/probe", tar::EntryType::Directory, 0o755, (1000, 1000), "", b"")
}

/// The probe's image, to be changed by a test.
pub fn probe_image() -> Image {
    static MADE: OnceLock<Image> = OnceLock::new();
    MADE.get_or_init(|| {
        Image::new()
            .layer(base_layer())
            .layer(Layer::new().file("probe", 0o755, parts::probe()))
            .set("Entrypoint", json!(["/probe"]))
            .set("Env", json!(["PATH=/usr/bin:/bin", "FROM_IMAGE=yes"]))
            .set("WorkingDir", json!("/home/probe"))
            .set("User", json!("probe"))
    })
    .clone()
}

/// Users, directories, and the few programs that a shell script needs.
pub fn tools_layer() -> Layer {
    platform::add_tools(base_layer().directory("bin", 0o755).directory("usr", 0o755).directory("usr/bin", 0o755))
}

/// A few programs behind the classic watchdog, if that was found.
pub fn classic_image() -> Option<Image> {
    let watchdog = fs::read(parts::stock("fwatchdog")?).expect("reading fwatchdog");
    Some(
        Image::new()
            .layer(tools_layer())
            .layer(Layer::new().file("usr/bin/fwatchdog", 0o755, &watchdog))
            .set("Cmd", json!(["fwatchdog"]))
            .set("Env", json!(["PATH=/usr/local/bin:/usr/bin:/bin", "fprocess=cat"]))
            .set("User", json!("1000:1000")),
    )
}

/// The probe behind of-watchdog, if that was found.
pub fn of_watchdog_image() -> Option<Image> {
    let watchdog = fs::read(parts::stock("of-watchdog")?).expect("reading of-watchdog");
    Some(
        Image::new()
            .layer(tools_layer())
            .layer(Layer::new().file("usr/bin/fwatchdog", 0o755, &watchdog).file(
                "usr/bin/handler",
                0o755,
                b"#!/bin/sh\nread line\necho \"handled $line\"\n",
            ))
            .set("Cmd", json!(["fwatchdog"]))
            .set("Env", json!(["PATH=/usr/local/bin:/usr/bin:/bin", "fprocess=/usr/bin/handler", "mode=streaming"]))
            .set("User", json!("1000")),
    )
}

/// The archive that `docker save` would write of [`probe_image`], under this name.
pub fn probe_archive(tag: &str) -> Vec<u8> {
    probe_image().docker_save(tag)
}
