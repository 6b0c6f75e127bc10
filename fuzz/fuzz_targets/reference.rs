//! Image names: what is accepted reads the same again, and can be part of a URL.
#![no_main]

use faas_jails::image::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else { return };
    let canonical = reference.canonical();
    let again: Reference = canonical.parse().expect("a canonical name is a name");
    assert_eq!(again.canonical(), canonical);
    assert!(canonical.bytes().all(|byte| byte.is_ascii_graphic()));
    // In one that names a repository to build, an empty part stands before the package.
    let empty = reference.source().is_none();
    assert!(!reference.repository().split('/').any(|part| matches!(part, "." | "..") || empty && part.is_empty()));
});
