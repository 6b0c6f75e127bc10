//! A command in a new jail on a clone that is ready: by this program, and by jail(8) from the shell.

use std::time::Instant;

use faas_jails::network::Mode;
use faas_jails::storage::Root;

use crate::ground::{Ground, Replica, Surface, command};
use crate::report::{columns, heading, median, row};

const ROUNDS: usize = 21;

pub fn run() {
    let mut ground = Ground::make(Mode::Alias);
    let place = tempfile::Builder::new().prefix("faas-jails-bench").tempdir().expect("a temporary directory");
    let path = place.path().display().to_string();
    let [mut ours, mut bare, mut alike]: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        let replica = ground.replica(Surface::Writable);
        let begun = Instant::now();
        ground.start(&replica, &["true"]);
        ground.await_exit(&replica);
        ours.push(begun.elapsed().as_secs_f64());
        ground.remove(&replica);
        let replica = ground.replica(Surface::Writable);
        let Root::Zfs(dataset) = &replica.root else { panic!("roots are ZFS's here") };
        command("mount", &["-t", "zfs", dataset, &path]);
        bare.push(timed(&format!("jail -c path={path} command=/usr/bin/true")));
        alike.push(timed(&like_ours(&ground, &replica, &path)));
        command("umount", &[&path]);
        ground.remove(&replica);
    }
    heading("a command in a jail on a ready clone, from nothing to its end, reference: jail -c from the shell");
    columns(&["way", "of jail -c with address, host name and /dev", "of jail -c path command"]);
    let (ours, bare, alike) = (median(ours), median(bare), median(alike));
    for (name, time) in
        [("faas-jails, all of a replica's start", ours), ("jail -c with address, host name and /dev", alike)]
    {
        row(&[&name, &format!("{:.2}", time / alike), &format!("{:.2}", time / bare)]);
    }
}

/// jail(8) with what comes nearest to a replica; the clone is mounted already.
fn like_ours(ground: &Ground, replica: &Replica, path: &str) -> String {
    format!(
        "jail -c name={realm}_shell path={path} host.hostname=f ip4.addr='{realm}lo|{address}' mount.devfs \
         devfs_ruleset=4 enforce_statfs=2 children.max=0 command=/usr/bin/true; umount {path}/dev",
        realm = ground.realm,
        address = replica.link.addresses[0].ip(),
    )
}

fn timed(script: &str) -> f64 {
    let begun = Instant::now();
    command("/bin/sh", &["-c", script]);
    begun.elapsed().as_secs_f64()
}
