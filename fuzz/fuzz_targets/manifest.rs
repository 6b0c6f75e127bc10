//! Manifests and indexes, and the choice of a platform among what an index lists.
#![no_main]

use faas_jails::image::Target;
use faas_jails::image::manifest::{Document, LAYERS_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match Document::parse(bytes) {
    Ok(Document::Manifest(manifest)) => assert!(manifest.layers.len() <= LAYERS_MAX),
    Ok(Document::Index(listed)) => {
        for target in [Target::linux("x86_64"), Target::freebsd("aarch64", 1_500_026)] {
            if let Some(at) = target.choose(listed.iter().map(|entry| entry.platform.as_ref())) {
                assert!(listed[at].platform.as_ref().is_none_or(|platform| target.accepts(platform)));
            }
        }
    }
    Err(_) => {}
});
