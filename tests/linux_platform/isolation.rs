//! What a replica sees and what it cannot do.

use crate::support::{World, root};
use faas_jails::sandbox::{Exit, User};

#[test]
fn a_replica_sees_itself_only() {
    if !root() {
        return;
    }
    let world = World::new();
    let output = world.shell(
        "hostname; id; echo pid $$; ps -o pid,args; echo fds; ls /proc/self/fd; cat /proc/self/cgroup; cat /etc/hosts; \
         pwd; env; ip -o link; cat /proc/mounts; ls -la / /dev /proc /sys; cat /proc/self/status; ls -la /etc",
    );
    println!("{output}");
}
