//! Git repositories served on loopback: by git's own `http-backend` behind a small HTTP server, or, on a machine without
//! git, by [`super::git_own`].

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::git_own::Objects;

/// How long a client may keep a connection without saying anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Repositories of the tests' own, by name.
type Owned = Arc<Mutex<BTreeMap<String, Objects>>>;

/// Whether this machine has git with its http-backend.
pub fn installed() -> bool {
    let Ok(out) = Command::new("git").arg("--exec-path").output() else { return false };
    Path::new(String::from_utf8_lossy(&out.stdout).trim()).join("git-http-backend").exists()
}

/// Serves every repository below a directory, read-only. Ends when it is dropped.
pub struct GitServer {
    /// Where.
    pub address: SocketAddr,
    root: PathBuf,
    owned: Owned,
    requests: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl GitServer {
    /// Serves what is, or will be, below `root`.
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binding a port for git");
        let address = listener.local_addr().expect("a bound address");
        let (requests, ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let owned = Owned::default();
        let (counted, ended, dir) = (Arc::clone(&requests), Arc::clone(&ending), root.to_owned());
        let known = Arc::clone(&owned);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), dir, counted) = (stream, dir.clone(), Arc::clone(&counted)) else { continue };
                let known = Arc::clone(&known);
                std::thread::spawn(move || {
                    let _ = serve(stream, &dir, &known, &counted);
                });
            }
        });
        Self { address, root: root.to_owned(), owned, requests, ending, thread: Some(thread) }
    }

    /// How many requests there have been.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// What a client calls the repository `name`.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Makes an empty repository.
    pub fn repository(&self, name: &str) -> Repository {
        if !installed() {
            return self.own(name, |_| ());
        }
        let bare = self.root.join(format!("{name}.git"));
        let work = self.root.join(format!("{name}.work"));
        run(&self.root, &["init", "-q", "-b", "main", "--bare", &bare.display().to_string()]);
        // Commits are named by clients of this API.
        run(&bare, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
        run(&self.root, &["init", "-q", "-b", "main", &work.display().to_string()]);
        run(&work, &["remote", "add", "origin", &bare.display().to_string()]);
        Repository { work, owned: None }
    }

    /// Makes a repository of the tests' own, which `fill` may give what git would not.
    pub fn own(&self, name: &str, fill: impl FnOnce(&mut Objects)) -> Repository {
        let work = self.root.join(format!("{name}.work"));
        fs::create_dir(&work).expect("making a work tree");
        let mut objects = Objects::default();
        fill(&mut objects);
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("/{name}.git"), objects);
        Repository { work, owned: Some((format!("/{name}.git"), Arc::clone(&self.owned))) }
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A repository under construction.
pub struct Repository {
    /// Its work tree, whose files the test may change before [`Repository::publish`].
    pub work: PathBuf,
    owned: Option<(String, Owned)>,
}

impl Repository {
    /// Writes these files, commits and publishes; gives the commit.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            let path = self.work.join(name);
            fs::create_dir_all(path.parent().expect("a file has a directory")).expect("making a directory");
            fs::write(path, text).expect("writing a file");
        }
        self.publish()
    }

    /// Commits what is in the work tree, and publishes it; gives the commit.
    pub fn publish(&self) -> String {
        if let Some((name, owned)) = &self.owned {
            return with(owned, name, |objects| objects.commit(&self.work));
        }
        run(&self.work, &["add", "-A"]);
        run(&self.work, &["commit", "-q", "--allow-empty", "-m", "change"]);
        run(&self.work, &["push", "-q", "-f", "origin", "HEAD"]);
        run(&self.work, &["rev-parse", "HEAD"])
    }

    /// Tags what is there now.
    pub fn tag(&self, name: &str) {
        if let Some((own, owned)) = &self.owned {
            return with(owned, own, |objects| objects.tag(name));
        }
        run(&self.work, &["tag", name]);
        run(&self.work, &["push", "-q", "origin", name]);
    }

    /// Goes on on a new branch.
    pub fn branch(&self, name: &str) {
        if let Some((own, owned)) = &self.owned {
            return with(owned, own, |objects| objects.switch(name));
        }
        run(&self.work, &["checkout", "-q", "-b", name]);
    }
}

fn with<T>(owned: &Owned, name: &str, change: impl FnOnce(&mut Objects) -> T) -> T {
    change(owned.lock().unwrap_or_else(PoisonError::into_inner).get_mut(name).expect("the repository"))
}

/// Runs git, by no settings but these.
pub fn run(dir: &Path, arguments: &[&str]) -> String {
    let out = Command::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@example.test", "-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .expect("running git");
    assert!(out.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// One request, for git as CGI (RFC 3875), then the connection is closed.
fn serve(stream: TcpStream, root: &Path, owned: &Owned, requests: &AtomicUsize) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    requests.fetch_add(1, Ordering::SeqCst);
    let mut backend = Command::new("git");
    backend
        .args(["-c", "safe.directory=*", "http-backend"])
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REMOTE_ADDR", "127.0.0.1");
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "content-type" => drop(backend.env("CONTENT_TYPE", value)),
            "content-encoding" => drop(backend.env("HTTP_CONTENT_ENCODING", value)),
            "git-protocol" => drop(backend.env("GIT_PROTOCOL", value)),
            _ => {}
        }
    }
    backend.env("CONTENT_LENGTH", length.to_string());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let own = path.find(".git/").map(|at| path.split_at(at + 4)).and_then(|(name, rest)| {
        Some(owned.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.answer(rest, &body))
    });
    let mut stream = stream;
    if let Some((kind, body)) = own {
        return reply(&mut stream, "200 OK", &format!("Content-Type: {kind}\r\n"), &body);
    }
    if !installed() {
        return reply(&mut stream, "404 Not Found", "", b"");
    }
    let mut child = backend.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut input = child.stdin.take().expect("a pipe");
    let feeder = std::thread::spawn(move || input.write_all(&body));
    let answer = child.wait_with_output()?.stdout;
    let _ = feeder.join();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let kept: String = head.lines().filter(|line| !line.starts_with("Status:")).map(|l| format!("{l}\r\n")).collect();
    reply(&mut stream, &status, &kept, answer.get(end + 4..).unwrap_or_default())
}

fn reply(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)
}
