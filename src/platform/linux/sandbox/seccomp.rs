//! The system calls that no function gets. Everything else is allowed: a list of what is allowed would break programs
//! with every new kernel and libc. On top of it come an unprivileged user, (almost) no capabilities and no new
//! privileges, which alone refuse most of these; the filter keeps hostile code away from the kernel's code behind them.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

use crate::fault::{Fault, Kind, Result};

/// Refused with EPERM, whatever their arguments.
const REFUSED: &[c_long] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Handles around path resolution.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Namespaces (unshare and clone by argument, below).
    libc::SYS_setns,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_vhangup,
    // Keys are not in any namespace.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The whole machine's time, swap, quota and accounting.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_acct,
    libc::SYS_fanotify_init,
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS__sysctl,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[c_long] = &[];

/// Answered with ENOSYS, so that programs fall back as on an older kernel. clone3 passes its flags in memory, where no
/// filter sees them; io_uring does system calls past all filters.
const ABSENT: &[c_long] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// `CLONE_NEW*`. CLONE_NEWTIME shares its bit with an exit signal in clone(2) and is for unshare(2) only.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
const CLONE_NEWTIME: libc::c_int = 0x80;

/// Local, IPv4, IPv6, and netlink for its routing protocol (0), which libc asks for interfaces.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// personality(2) values that programs use: Linux, 32 bits, old version numbers, and asking.
const PERSONALITIES: &[u32] = &[0, 0x8, 0x2_0000, 0x2_0008, u32::MAX];

/// The filters, to be installed in this order.
pub(super) fn filters() -> Result<Vec<BpfProgram>> {
    let refused = refused().map_err(|error| {
        Fault::new(Kind::Unsupported, "cannot make a system call filter for this processor").because(error)
    })?;
    Ok(vec![absent(), refused])
}

fn refused() -> Result<BpfProgram, Box<dyn std::error::Error + Send + Sync>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().chain(REFUSED_HERE).map(|&number| (number, Vec::new())).collect();
    let has_flag = |flag: libc::c_int| {
        let flag = flag as u64;
        rule(vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])
    };
    let clone: Vec<SeccompRule> = NAMESPACES.iter().map(|&flag| has_flag(flag)).collect::<Result<_, _>>()?;
    let mut unshare = clone.clone();
    unshare.push(has_flag(CLONE_NEWTIME)?);
    rules.insert(libc::SYS_clone, clone);
    rules.insert(libc::SYS_unshare, unshare);

    let families = FAMILIES.iter().map(|&family| condition(0, SeccompCmpOp::Ne, family as u64));
    let strange = rule(families.collect::<Result<_, _>>()?)?;
    let netlink = rule(vec![
        condition(0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64)?,
        condition(2, SeccompCmpOp::Ne, libc::NETLINK_ROUTE as u64)?,
    ])?;
    rules.insert(libc::SYS_socketpair, vec![strange.clone()]);
    rules.insert(libc::SYS_socket, vec![strange, netlink]);

    let odd = PERSONALITIES.iter().map(|&value| condition(0, SeccompCmpOp::Ne, u64::from(value)));
    rules.insert(libc::SYS_personality, vec![rule(odd.collect::<Result<_, _>>()?)?]);

    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    // All of these are ints to the kernel, which ignores the upper half of the register.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions)
}

/// By hand, because seccompiler knows one answer per filter and no comparison of call numbers: x86_64's second
/// interface (x32) has the same calls under numbers from 2^30, which no list would match.
fn absent() -> BpfProgram {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const X32: u32 = 0x4000_0000;
    let line = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    // struct seccomp_data starts with the call's number.
    let mut program = vec![line(LOAD, 0, 0, 0)];
    let tests = ABSENT.iter().map(|&number| (EQUAL, number as u32)).chain([(AT_LEAST, X32)]);
    for (code, value) in tests {
        program.push(line(code, 0, 1, value));
        program.push(line(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    }
    program.push(line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// The errno of a system call, 0 if it worked.
    fn errno(number: c_long, arguments: [u64; 4]) -> i32 {
        let [a, b, c, d] = arguments;
        // SAFETY: the calls below are refused by the filter, or ask for nothing that touches memory.
        let result = unsafe { libc::syscall(number, a, b, c, d, 0, 0) };
        if result >= 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap() }
    }

    /// A filter binds its thread only, so that one thread can be the sandbox.
    fn filtered(test: impl FnOnce() + Send + 'static) {
        let filters = filters().unwrap();
        let confined = move || {
            super::super::step::Step::Filter(&filters).run(&mut -1).unwrap();
            test();
        };
        std::thread::spawn(confined).join().unwrap();
    }

    #[test]
    fn every_listed_call_is_refused() {
        filtered(|| {
            for &number in REFUSED.iter().chain(REFUSED_HERE) {
                assert_eq!(errno(number, [0; 4]), libc::EPERM, "system call {number}");
            }
            for &number in ABSENT {
                assert_eq!(errno(number, [0; 4]), libc::ENOSYS, "system call {number}");
            }
        });
    }

    #[test]
    fn namespaces_are_refused_by_either_call() {
        filtered(|| {
            for &flag in NAMESPACES.iter().chain([&CLONE_NEWTIME]) {
                assert_eq!(errno(libc::SYS_unshare, [flag as u64, 0, 0, 0]), libc::EPERM, "unshare {flag:#x}");
                // The upper half of a register is nothing to the kernel; a filter must not be led astray by it.
                assert_eq!(errno(libc::SYS_unshare, [flag as u64 | 1 << 40, 0, 0, 0]), libc::EPERM);
            }
            for &flag in NAMESPACES {
                let flags = (flag | libc::SIGCHLD) as u64;
                assert_eq!(errno(libc::SYS_clone, [flags, 0, 0, 0]), libc::EPERM, "clone {flag:#x}");
            }
            assert_eq!(errno(libc::SYS_unshare, [libc::CLONE_FS as u64, 0, 0, 0]), 0, "no namespace, no harm");
            std::thread::spawn(|| {}).join().unwrap();
        });
    }

    #[test]
    fn only_the_sockets_that_functions_need() {
        filtered(|| {
            let socket = |family: libc::c_int, kind: libc::c_int, protocol: libc::c_int| {
                errno(libc::SYS_socket, [family as u64, kind as u64, protocol as u64, 0])
            };
            for &family in FAMILIES {
                assert_eq!(socket(family, libc::SOCK_DGRAM, 0), 0, "family {family}");
            }
            for family in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH, libc::AF_TIPC, 0, 99] {
                assert_eq!(socket(family, libc::SOCK_DGRAM, 0), libc::EPERM, "family {family}");
            }
            for protocol in [libc::NETLINK_NETFILTER, libc::NETLINK_AUDIT, libc::NETLINK_KOBJECT_UEVENT] {
                assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol), libc::EPERM, "netlink {protocol}");
            }
            assert_eq!(errno(libc::SYS_socketpair, [libc::AF_TIPC as u64, 1, 0, 0]), libc::EPERM);
        });
    }

    #[test]
    fn personalities() {
        filtered(|| {
            const ADDR_NO_RANDOMIZE: u64 = 0x4_0000;
            assert_eq!(errno(libc::SYS_personality, [u64::from(u32::MAX), 0, 0, 0]), 0);
            assert_eq!(errno(libc::SYS_personality, [ADDR_NO_RANDOMIZE, 0, 0, 0]), libc::EPERM);
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_second_interface_of_x86_64_is_closed() {
        filtered(|| {
            for number in [libc::SYS_mount, libc::SYS_getpid, libc::SYS_ptrace] {
                assert_eq!(errno(number | 0x4000_0000, [0; 4]), libc::ENOSYS, "x32 {number}");
            }
        });
    }
}
