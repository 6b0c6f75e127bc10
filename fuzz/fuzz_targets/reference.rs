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
    assert!(!reference.repository().split('/').any(|part| matches!(part, "" | "." | "..")));
});
