//! A platform for tests without root: replicas are threads that answer HTTP on loopback addresses. It keeps its
//! own books as a kernel does, outlives a provider, and misbehaves when a function's environment says so:
//! `FAIL_START`, `EXIT_AFTER_MS`, `NEVER_LISTEN`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::Platform;
use crate::fault::{Fault, Kind, Result};
use crate::function::ReplicaName;
use crate::image::Layer;
use crate::network::{Attachment, Link, Network, Policy};
use crate::sandbox::{Exit, Found, Plan, Program, Sandbox, Signal, Usage};
use crate::storage::{Inventory, Root, RootOptions, Staging, Storage};

/// The fake kernel. Clone it to see what is left in it.
#[derive(Clone, Default)]
pub struct Fake {
    books: Arc<Mutex<Books>>,
    /// Replicas ever started.
    pub starts: Arc<AtomicUsize>,
    /// While set, no start succeeds.
    pub refuses: Arc<AtomicBool>,
}

#[derive(Default)]
struct Books {
    roots: BTreeSet<ReplicaName>,
    links: BTreeMap<ReplicaName, IpAddr>,
    processes: BTreeMap<ReplicaName, Process>,
    prepared: BTreeSet<ReplicaName>,
    policy: Policy,
}

#[derive(Default)]
struct Process {
    stop: Arc<AtomicBool>,
    frozen: Arc<AtomicBool>,
    exit: Option<Exit>,
    on_exit: Vec<Box<dyn FnOnce(Exit) + Send>>,
}

impl Fake {
    /// The three capabilities, all of this kernel.
    pub fn platform(&self) -> Platform {
        Platform { storage: Arc::new(self.clone()), network: Arc::new(self.clone()), sandbox: Arc::new(self.clone()) }
    }

    /// Replicas that lack only their program.
    pub fn prepared(&self) -> Vec<ReplicaName> {
        self.books.lock().unwrap().prepared.iter().cloned().collect()
    }

    /// Roots, links and processes that exist.
    pub fn left(&self) -> (usize, usize, usize) {
        let books = self.books.lock().unwrap();
        (books.roots.len(), books.links.len(), books.processes.len())
    }

    /// What the packet filter was told last.
    pub fn policy(&self) -> Policy {
        self.books.lock().unwrap().policy.clone()
    }

    /// Ends a replica as if it had crashed.
    pub fn crash(&self, replica: &ReplicaName) {
        self.end(replica, Exit::Code(1));
    }

    /// Replicas that are frozen.
    pub fn frozen(&self) -> usize {
        self.books.lock().unwrap().processes.values().filter(|p| p.frozen.load(Ordering::SeqCst)).count()
    }

    fn pause(&self, replica: &ReplicaName, frozen: bool) -> Result<()> {
        if let Some(process) = self.books.lock().unwrap().processes.get(replica) {
            process.frozen.store(frozen, Ordering::SeqCst);
        }
        Ok(())
    }

    fn end(&self, replica: &ReplicaName, exit: Exit) {
        let waiting = {
            let mut books = self.books.lock().unwrap();
            let Some(process) = books.processes.get_mut(replica) else { return };
            process.stop.store(true, Ordering::SeqCst);
            if process.exit.is_some() {
                return;
            }
            process.exit = Some(exit);
            std::mem::take(&mut process.on_exit)
        };
        for on_exit in waiting {
            std::thread::spawn(move || on_exit(exit));
        }
    }
}

impl Storage for Fake {
    fn has(&self, _: &Layer) -> Result<bool> {
        Ok(true)
    }
    fn stage(&self, _: &Layer) -> Result<Staging> {
        Err(Fault::new(Kind::Unsupported, "the fake has every layer"))
    }
    fn commit(&self, _: Staging) -> Result<()> {
        Ok(())
    }
    fn abort(&self, _: Staging) -> Result<()> {
        Ok(())
    }
    fn clone_root(&self, _: &[Layer], replica: &ReplicaName, _: &RootOptions) -> Result<Root> {
        self.books.lock().unwrap().roots.insert(replica.clone());
        Ok(Root::Directory(PathBuf::from("/nonexistent")))
    }
    fn destroy_root(&self, replica: &ReplicaName) -> Result<()> {
        self.books.lock().unwrap().roots.remove(replica);
        Ok(())
    }
    fn remove_layer(&self, _: &Layer) -> Result<()> {
        Ok(())
    }
    fn inventory(&self) -> Result<Inventory> {
        Ok(Inventory { roots: self.books.lock().unwrap().roots.iter().cloned().collect(), layers: Vec::new() })
    }
    fn recover(&self) -> Result<()> {
        Ok(())
    }
}

impl Network for Fake {
    fn setup(&self, _: &[IpNetwork]) -> Result<()> {
        Ok(())
    }
    fn teardown(&self) -> Result<()> {
        Ok(())
    }
    fn attach(&self, replica: &ReplicaName, link: &Link) -> Result<Attachment> {
        let address = link.addresses.first().expect("an address of the pool").ip();
        self.books.lock().unwrap().links.insert(replica.clone(), address);
        Ok(Attachment::Inherit)
    }
    fn detach(&self, replica: &ReplicaName) -> Result<()> {
        self.books.lock().unwrap().links.remove(replica);
        Ok(())
    }
    fn attached(&self) -> Result<Vec<ReplicaName>> {
        Ok(self.books.lock().unwrap().links.keys().cloned().collect())
    }
    fn enforce(&self, policy: &Policy) -> Result<()> {
        self.books.lock().unwrap().policy = policy.clone();
        Ok(())
    }
}

impl Sandbox for Fake {
    fn prepare(&self, plan: &Plan) -> Result<()> {
        self.books.lock().unwrap().prepared.insert(plan.replica.clone());
        Ok(())
    }

    fn start(&self, plan: &Plan) -> Result<()> {
        if plan.env.contains_key("FAIL_START") || self.refuses.load(Ordering::SeqCst) {
            return Err(Fault::invalid(format!("{} is not in the image", plan.argv[0])));
        }
        self.starts.fetch_add(1, Ordering::SeqCst);
        let process = Process::default();
        let (stop, frozen) = (Arc::clone(&process.stop), Arc::clone(&process.frozen));
        let address = {
            let mut books = self.books.lock().unwrap();
            books.prepared.remove(&plan.replica);
            books.processes.insert(plan.replica.clone(), process);
            books.links[&plan.replica]
        };
        if let Some(after) = plan.env.get("EXIT_AFTER_MS").and_then(|ms| ms.parse().ok()) {
            let (fake, replica) = (self.clone(), plan.replica.clone());
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(after));
                fake.end(&replica, Exit::Code(3));
            });
        }
        if !plan.env.contains_key("NEVER_LISTEN") {
            let listener = TcpListener::bind((address, 8080))?;
            listener.set_nonblocking(true)?;
            let greeting = plan.env.get("GREETING").cloned().unwrap_or_default();
            std::thread::spawn(move || serve(&listener, &stop, &frozen, &greeting));
        }
        Ok(())
    }

    fn signal(&self, replica: &ReplicaName, _: Signal) -> Result<()> {
        self.end(replica, Exit::Signal(15));
        Ok(())
    }

    fn exec(&self, replica: &ReplicaName, program: &Program) -> Result<Exit> {
        let books = self.books.lock().unwrap();
        match books.processes.get(replica).map(|process| process.exit) {
            // Every program of the fake's images is true(1) but false(1).
            Some(None) => Ok(Exit::Code(i32::from(program.argv[0] == "false"))),
            _ => Err(Fault::not_found(format!("replica {replica} does not run"))),
        }
    }

    fn teardown(&self) -> Result<()> {
        Ok(())
    }

    fn remove(&self, replica: &ReplicaName) -> Result<()> {
        self.end(replica, Exit::Signal(9));
        let mut books = self.books.lock().unwrap();
        books.processes.remove(replica);
        books.prepared.remove(replica);
        Ok(())
    }

    fn watch(&self, replica: &ReplicaName, on_exit: Box<dyn FnOnce(Exit) + Send>) -> Result<()> {
        let mut books = self.books.lock().unwrap();
        match books.processes.get_mut(replica).map(|process| (process.exit, process)) {
            Some((None, process)) => process.on_exit.push(on_exit),
            Some((Some(exit), _)) => drop(std::thread::spawn(move || on_exit(exit))),
            None => drop(std::thread::spawn(move || on_exit(Exit::Unknown))),
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<Found>> {
        let books = self.books.lock().unwrap();
        let found = |(replica, process): (&ReplicaName, &Process)| Found {
            replica: replica.clone(),
            alive: process.exit.is_none(),
            number: None,
        };
        let prepared =
            books.prepared.iter().map(|replica| Found { replica: replica.clone(), alive: false, number: None });
        Ok(books.processes.iter().map(found).chain(prepared).collect())
    }

    fn freeze(&self, replica: &ReplicaName) -> Result<()> {
        self.pause(replica, true)
    }

    fn thaw(&self, replica: &ReplicaName) -> Result<()> {
        self.pause(replica, false)
    }

    fn usage(&self, _: &ReplicaName) -> Result<Usage> {
        Ok(Usage { cpu: Duration::from_millis(5), memory: 1 << 20, pids: 1 })
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool, frozen: &AtomicBool, greeting: &str) {
    while !stop.load(Ordering::SeqCst) {
        if frozen.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let greeting = greeting.to_owned();
        std::thread::spawn(move || {
            let _ = stream.set_nonblocking(false);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", greeting.len());
            let _ = stream.write_all((head + &greeting).as_bytes());
        });
    }
}
