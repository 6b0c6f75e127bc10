//! Conditions of a host that make faas-jails refuse to work; docs/refusals.md has the whole table.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::needs_root;
use crate::support::parts;

#[test]
fn who_is_not_root_is_told_so() {
    needs_root!();
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("letting others in");
    let (program, root) = (dir.path().join("faas-jails"), dir.path().join("root"));
    fs::copy(parts::program(), &program).expect("copying the program");
    let config = dir.path().join("config.toml");
    fs::write(&config, format!("root = \"{}\"\nlisten = \"127.0.0.1:0\"\n", root.display())).expect("writing");
    for verb in [&["serve"][..], &["purge"]] {
        let mut command = Command::new(&program);
        command.arg("--config").arg(&config).args(verb).uid(65534).gid(65534);
        let output = command.output().expect("running faas-jails");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(77), "{verb:?}: {said}");
        assert!(said.contains("needs root") && said.contains("sudo"), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        assert!(!root.exists(), "something was made");
    }
}
