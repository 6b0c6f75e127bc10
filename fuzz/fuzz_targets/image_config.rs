//! Image configurations, and the look-up of their user in account files.
#![no_main]

use faas_jails::image::config::ImageConfig;
use faas_jails::image::unpack::Seen;
use faas_jails::image::user::resolve;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &str, &str)| {
    let (config, passwd, group) = input;
    let Ok(config) = ImageConfig::parse(config) else { return };
    assert!(config.workdir.starts_with('/'));
    assert!(config.argv.iter().all(|argument| !argument.contains('\0')));
    let layers = config.layers();
    assert_eq!(layers.len(), config.diff_ids.len());
    assert!(layers.windows(2).all(|pair| pair[1].parent.as_ref() == Some(&pair[0].chain_id)));
    if let Ok(user) = resolve(&config.user, &Seen::Text(passwd.to_owned()), &Seen::Text(group.to_owned())) {
        let all = user.groups.iter().chain([&user.uid, &user.gid]);
        assert!(all.into_iter().all(|id| *id <= i32::MAX as u32));
    }
});
