//! Linux programs: run by the kernel's Linux emulation, with the file systems they expect.

use std::os::unix::fs::PermissionsExt;

use faas_jails::platform::freebsd::{mount, sysctl};
use faas_jails::sandbox::{Personality, Sandbox};
use faas_jails::storage::Root;

use crate::support::Host;

/// A static Linux program for amd64, by hand: write(1, "linux\n", 6), exit(42), by Linux's call numbers.
fn linux_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut code = vec![
        0xb8, 1, 0, 0, 0, // mov eax, 1
        0xbf, 1, 0, 0, 0, // mov edi, 1
        0x48, 0x8d, 0x35, 19, 0, 0, 0, // lea rsi, [rip + 19]
        0xba, 6, 0, 0, 0, // mov edx, 6
        0x0f, 0x05, // syscall
        0xb8, 60, 0, 0, 0, // mov eax, 60
        0xbf, 42, 0, 0, 0, // mov edi, 42
        0x0f, 0x05, // syscall
    ];
    code.extend(b"linux\n");
    let size = HEADERS + code.len() as u64;
    // 64 bits, little endian, version 1, ELFOSABI_LINUX.
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0];
    for short in [2u16, 62] {
        elf.extend(short.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes());
    for long in [BASE + HEADERS, 64, 0] {
        elf.extend(long.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    for short in [64u16, 56, 1, 64, 0, 0] {
        elf.extend(short.to_le_bytes());
    }
    // One segment to load, readable and executable.
    for word in [1u32, 5] {
        elf.extend(word.to_le_bytes());
    }
    for long in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(long.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[test]
fn a_linux_program_runs_among_linux_file_systems() {
    let Some(host) = Host::new() else { return };
    if !cfg!(target_arch = "x86_64") || !sysctl::exists("security.jail.param.linux") {
        eprintln!("SKIPPED: needs linux64 on amd64: kldload linux64 linprocfs linsysfs");
        return;
    }
    let tree = host.tree();
    std::fs::write(tree.join("program"), linux_program()).unwrap();
    std::fs::set_permissions(tree.join("program"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = "/program; echo $?; cat /proc/version; ls /sys; : > /dev/shm/x && echo shm; ls -l /proc/self/fd/; \
        echo end; sleep 300";
    let mut plan = host.plan_on(Root::Directory(tree), script);
    plan.personality = Personality::Linux;
    host.sandbox().start(&plan).unwrap_or_else(|fault| panic!("{fault}"));
    host.wait_for(&plan.replica, "end");
    let output = host.output(&plan.replica);
    assert!(output.starts_with("linux\n42\nLinux version "), "{output}");
    assert!(output.contains("\nshm\n") && output.contains("class"), "{output}");
    let mut types: Vec<String> = mount::list(&plan.run_dir).unwrap().into_iter().map(|m| m.fstype).collect();
    types.sort();
    assert_eq!(types, ["devfs", "fdescfs", "linprocfs", "linsysfs", "nullfs", "tmpfs"]);
    host.remove(&plan.replica).unwrap();
}

#[test]
fn without_the_linuxulator_it_is_named() {
    let Some(host) = Host::new() else { return };
    if sysctl::exists("security.jail.param.linux") {
        eprintln!("SKIPPED: needs a kernel without linux64");
        return;
    }
    let mut plan = host.plan("true");
    plan.personality = Personality::Linux;
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert!(fault.to_string().contains("service linux start"), "{fault}");
    host.remove(&plan.replica).unwrap();
}
