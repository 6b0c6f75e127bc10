//! Making a host ready, step by step: what `faas-jails init`, `init --check` and `deinit` walk through.
//!
//! An [`Item`] is one thing that a host needs. It can be looked at, made and taken away again; it takes away only
//! what it made itself, which it knows by a mark: a user property, a comment, a description.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::Rng;

use crate::config::Config;
use crate::fault::{Context, Fault, Kind, Result};

/// The first line of files that [`Item::make`] has written. Who wants to keep such a file takes the line out.
pub const MARK: &str = "# made by faas-jails init; faas-jails deinit removes this file while this line is here";

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is as it should be; what was seen.
    Ready(String),
    /// This configuration does without; why.
    Unneeded(String),
    /// It is not there.
    Missing {
        /// What was seen instead.
        seen: String,
        /// The command or line that mends it.
        mend: String,
    },
}

impl State {
    /// Short for [`State::Missing`].
    pub fn missing(seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Missing { seen: seen.into(), mend: mend.into() }
    }
}

/// What the administrator may decide.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// FreeBSD: put the anchors into /etc/pf.conf.
    pub write_pf: bool,
    /// FreeBSD: make the pool on this file when it is not there.
    pub pool_file: Option<PathBuf>,
    /// How large that file looks; it grows as it is used.
    pub pool_bytes: u64,
    /// FreeBSD: also get ready for images of Linux programs.
    pub linux: bool,
}

/// One thing that a host needs.
pub trait Item {
    /// What it is, in a word or two.
    fn name(&self) -> &'static str;

    /// Looks, and changes nothing.
    fn look(&self) -> Result<State>;

    /// Makes it; called when it is missing. `false`: that is the administrator's to do.
    fn make(&self) -> Result<bool>;

    /// Takes away what [`Item::make`] made, and says what that was. Nothing there is success.
    fn unmake(&self) -> Result<Option<String>>;
}

/// Whether missing things are made or only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// They are made.
    Make,
    /// They are told.
    Tell,
}

/// Walks through the items, one line each, and fails at the end if something is still missing.
pub fn provide(items: &[Box<dyn Item>], what: Missing, out: &mut dyn Write) -> Result<()> {
    let mut lacking = Vec::new();
    for item in items {
        let (word, told) = match step(item.as_ref(), what) {
            Ok((word, told)) => (word, told),
            Err(fault) => ("failed", fault.to_string()),
        };
        line(out, word, item.name(), &told)?;
        if matches!(word, "missing" | "failed") {
            lacking.push(item.name());
        }
    }
    match lacking.as_slice() {
        [] => Ok(()),
        names => Err(Fault::new(Kind::Unsupported, format!("not ready, see above: {}", names.join(", ")))),
    }
}

fn step(item: &dyn Item, what: Missing) -> Result<(&'static str, String)> {
    let shown = |state: State| match state {
        State::Ready(seen) => ("ok", seen),
        State::Unneeded(why) => ("unneeded", why),
        State::Missing { seen, mend } => ("missing", format!("{seen}; {mend}")),
    };
    let state = item.look()?;
    if what == Missing::Tell || !matches!(state, State::Missing { .. }) || !item.make()? {
        return Ok(shown(state));
    }
    Ok(match shown(item.look()?) {
        ("ok", seen) => ("made", seen),
        other => other,
    })
}

/// Takes away what [`provide`] made, the last first; attempts everything and reports every failure.
pub fn withdraw(items: &[Box<dyn Item>], out: &mut dyn Write) -> Result<()> {
    let mut failed = Vec::new();
    for item in items.iter().rev() {
        match item.unmake() {
            Ok(Some(what)) => line(out, "removed", item.name(), &what)?,
            Ok(None) => line(out, "left", item.name(), "not made by init")?,
            Err(fault) => {
                line(out, "failed", item.name(), &fault.to_string())?;
                failed.push(item.name());
            }
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        names => Err(Fault::new(Kind::System, format!("not removed, see above: {}", names.join(", ")))),
    }
}

fn line(out: &mut dyn Write, word: &str, name: &str, told: &str) -> Result<()> {
    writeln!(out, "{word:9} {name:16} {told}").context(|| "cannot write")
}

/// A file with a fixed content.
pub struct MarkedFile {
    /// What it is.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// What is in it; holds [`MARK`] in a line.
    pub content: String,
    /// Its permissions.
    pub mode: u32,
    /// Said beside the path.
    pub hint: String,
}

impl Item for MarkedFile {
    fn name(&self) -> &'static str {
        self.name
    }

    fn look(&self) -> Result<State> {
        let shown = self.path.display();
        Ok(match self.path.exists() {
            true => State::Ready(format!("{shown}{}", self.hint)),
            false => State::missing(format!("no {shown}"), "run: faas-jails init"),
        })
    }

    fn make(&self) -> Result<bool> {
        write_new(&self.path, self.content.as_bytes(), self.mode)?;
        Ok(true)
    }

    fn unmake(&self) -> Result<Option<String>> {
        let marked = std::fs::read_to_string(&self.path).is_ok_and(|text| text.lines().any(|line| line == MARK));
        if !marked {
            return Ok(None);
        }
        crate::files::remove(&self.path)?;
        Ok(Some(self.path.display().to_string()))
    }
}

/// Below the state directory, and in the directory of the password: it was made here.
const MADE_HERE: &str = ".made-by-faas-jails-init";

/// Where functions, images and logs are.
pub struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    /// The one that the configuration names.
    pub fn of(config: &Config) -> Self {
        Self { path: config.root.clone() }
    }
}

impl Item for StateDirectory {
    fn name(&self) -> &'static str {
        "state"
    }

    fn look(&self) -> Result<State> {
        let shown = self.path.display();
        Ok(match self.path.is_dir() {
            true => State::Ready(shown.to_string()),
            false => State::missing(format!("no {shown}"), "run: faas-jails init"),
        })
    }

    fn make(&self) -> Result<bool> {
        write_new(&self.path.join(MADE_HERE), b"", 0o600)?;
        Ok(true)
    }

    fn unmake(&self) -> Result<Option<String>> {
        if !self.path.join(MADE_HERE).exists() {
            return Ok(None);
        }
        let shown = self.path.display();
        let files = std::fs::read_dir(&self.path).context(|| format!("cannot list {shown}"))?;
        let image = files.flatten().find(|entry| entry.path().extension().is_some_and(|end| end == "img"));
        if let Some(image) = image {
            let message = format!("{shown} stays, as it holds {}", image.file_name().to_string_lossy());
            return Err(Fault::new(Kind::Busy, message));
        }
        crate::files::remove_tree(&self.path)?;
        Ok(Some(shown.to_string()))
    }
}

/// User and password for the API.
pub struct Secrets {
    directory: PathBuf,
    needed: bool,
}

impl Secrets {
    /// Those that the configuration names.
    pub fn of(config: &Config) -> Self {
        Self { directory: config.secret_mount_path.clone(), needed: config.basic_auth }
    }

    fn mark(&self) -> PathBuf {
        self.directory.join(MADE_HERE)
    }

    fn files(&self) -> [PathBuf; 2] {
        ["basic-auth-user", "basic-auth-password"].map(|name| self.directory.join(name))
    }
}

impl Item for Secrets {
    fn name(&self) -> &'static str {
        "password"
    }

    fn look(&self) -> Result<State> {
        if !self.needed {
            return Ok(State::Unneeded("basic_auth is off; who reaches the port may deploy".into()));
        }
        let [user, password] = self.files();
        Ok(match user.exists() && password.exists() {
            true => State::Ready(format!("user {}, password {}", user.display(), password.display())),
            false => State::missing(
                format!("no basic-auth-user and basic-auth-password in {}", self.directory.display()),
                "run: faas-jails init",
            ),
        })
    }

    fn make(&self) -> Result<bool> {
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.directory);
        made.context(|| format!("cannot make {}", self.directory.display()))?;
        let [user, password] = self.files();
        if !user.exists() {
            write_new(&user, b"admin\n", 0o600)?;
        }
        if !password.exists() {
            let bytes: [u8; 24] = rand::rng().random();
            write_new(&password, format!("{}\n", hex::encode(bytes)).as_bytes(), 0o600)?;
        }
        write_new(&self.mark(), b"", 0o600)?;
        Ok(true)
    }

    fn unmake(&self) -> Result<Option<String>> {
        if !self.mark().exists() {
            return Ok(None);
        }
        for file in self.files().iter().chain([&self.mark()]) {
            crate::files::remove(file)?;
        }
        // Only if nobody put something else there.
        let _ = std::fs::remove_dir(&self.directory);
        Ok(Some(self.directory.display().to_string()))
    }
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let told = || format!("cannot make {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).context(told)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = match options.write(true).create_new(true).mode(mode).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.context(told)?,
    };
    file.write_all(content).context(told)
}

/// The configuration file that a host without one gets: authentication on, all else as it is by default.
pub fn first_config() -> String {
    let example = include_str!("../deploy/config.toml");
    let root = Config::default().root;
    format!("{MARK}\nbasic_auth = true\nsecret_mount_path = \"{}\"\n\n{example}", root.join("auth").display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(dir: &Path) -> Vec<Box<dyn Item>> {
        let config = Config {
            root: dir.join("state"),
            basic_auth: true,
            secret_mount_path: dir.join("auth"),
            ..Config::default()
        };
        let file = MarkedFile {
            name: "file",
            path: dir.join("etc/file"),
            content: format!("{MARK}\nx\n"),
            mode: 0o644,
            hint: String::new(),
        };
        vec![Box::new(file), Box::new(StateDirectory::of(&config)), Box::new(Secrets::of(&config))]
    }

    fn words(text: &[u8]) -> Vec<String> {
        let lines = String::from_utf8_lossy(text).into_owned();
        lines.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn what_is_missing_is_told_then_made_then_there_and_then_gone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let items = items(dir.path());
        let walk = |what| {
            let mut out = Vec::new();
            (provide(&items, what, &mut out).map_err(|fault| fault.kind()), words(&out))
        };
        assert_eq!(walk(Missing::Tell), (Err(Kind::Unsupported), vec!["missing".into(); 3]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a look changed something");
        assert_eq!(walk(Missing::Make), (Ok(()), vec!["made".into(); 3]));
        assert_eq!(walk(Missing::Make), (Ok(()), vec!["ok".into(); 3]));
        let password = dir.path().join("auth/basic-auth-password");
        assert_eq!(password.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(password).unwrap().trim().len() >= 32);
        let mut out = Vec::new();
        withdraw(&items, &mut out).unwrap();
        assert_eq!(words(&out), ["removed"; 3]);
        for gone in ["etc/file", "auth", "state"] {
            assert!(!dir.path().join(gone).exists(), "{gone}");
        }
    }

    #[test]
    fn what_somebody_else_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::create_dir_all(dir.path().join("auth")).unwrap();
        for file in ["etc/file", "auth/basic-auth-user", "auth/basic-auth-password"] {
            std::fs::write(dir.path().join(file), "mine").unwrap();
        }
        let items = items(dir.path());
        provide(&items, Missing::Make, &mut Vec::new()).unwrap();
        withdraw(&items, &mut Vec::new()).unwrap();
        for file in ["etc/file", "auth/basic-auth-user", "auth/basic-auth-password"] {
            assert_eq!(std::fs::read_to_string(dir.path().join(file)).unwrap(), "mine", "{file}");
        }
    }

    #[test]
    fn the_first_configuration_is_valid_and_asks_for_a_password() {
        let config = Config::read(&first_config(), |_| None).unwrap();
        assert!(config.basic_auth);
        let rest = Config { basic_auth: false, secret_mount_path: Config::default().secret_mount_path, ..config };
        assert_eq!(rest, Config::default(), "the example changes a default");
    }

    /// Every setting of the example is one that the program knows, at its default value or a valid other one.
    #[test]
    fn the_example_configuration_with_every_line_in_force_is_valid() {
        let example = include_str!("../deploy/config.toml");
        let live = |line: &str| line.strip_prefix("#: ").unwrap_or(line).to_owned();
        let text: Vec<String> = example.lines().map(live).collect();
        Config::read(&text.join("\n"), |_| None).unwrap_or_else(|fault| panic!("{fault}"));
        let known: toml::Table = text.join("\n").parse().unwrap();
        assert!(known.len() >= 18, "{known:?}");
    }
}
