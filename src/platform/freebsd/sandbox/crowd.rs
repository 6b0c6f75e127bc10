//! Dead processes that nobody waits for, where the kernel may not be told to deny forks (see [`rctl`]): they count
//! for no limit there, and a function that only makes them would fill the host's table of processes. A thread looks
//! a few times a second, and ends a replica that has too many of them.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::jail::{self, View};
use super::super::{process, rctl};
use crate::fault::{Context, Result};
use crate::function::{Realm, ReplicaName};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// How many times as many processes as its limit a replica may have, the dead ones counted.
const TIMES: u64 = 4;

/// The thread. It ends with this.
pub struct Crowd {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Looks after the replicas of `realm` on a kernel that needs it.
    pub fn watch(realm: Realm) -> Result<Option<Self>> {
        if !rctl::enabled() || rctl::forks_are_denied() {
            return Ok(None);
        }
        let (stop, stopped) = mpsc::channel();
        let look_again = move || {
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                if let Err(fault) = look(&realm) {
                    tracing::warn!("cannot count the processes of replicas: {fault}");
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("crowds".to_owned())
            .spawn(look_again)
            .context(|| "cannot start the thread that counts processes")?;
        Ok(Some(Self { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn look(realm: &Realm) -> Result<()> {
    for (jid, count) in process::crowds()? {
        let Some(jail) = jail::find_jid(jid, View::Alive)? else { continue };
        if jail.name.parse::<ReplicaName>().is_ok_and(|replica| replica.realm() == realm)
            && rctl::process_limit(&jail.name)?.is_some_and(|limit| count > limit.saturating_mul(TIMES))
        {
            tracing::warn!(
                "ending {}: it has {count} processes, most of them dead and waited for by nobody",
                jail.name
            );
            jail::remove(jid)?;
        }
    }
    Ok(())
}
