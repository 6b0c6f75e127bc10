//! A layer's bytes through decompression, tar and PAX headers, without writing a file.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use faas_jails::image::Digest;
use faas_jails::image::unpack::{Expected, UnpackLimits, unpack};
use libfuzzer_sys::fuzz_target;

static LIMITS: LazyLock<UnpackLimits> = LazyLock::new(|| UnpackLimits {
    entries: 1000,
    bytes: 1 << 20,
    header: 4096,
    time: Duration::from_secs(5),
    ..UnpackLimits::default()
});

fuzz_target!(|bytes: &[u8]| {
    let diff_id = Digest::of(bytes);
    let expected = Expected { blob: None, diff_id: Some(&diff_id) };
    // An uncompressed layer has its own digest, so that it can be accepted, too.
    let _ = unpack(bytes, &expected, None, &LIMITS, Box::new(|_| Ok(())));
});
