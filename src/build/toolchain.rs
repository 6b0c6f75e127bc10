//! Which Go compiles: the host's, or one from a configured archive.

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use flate2::read::GzDecoder;

use super::base;
use super::elf::Elf;
use super::modules::{self, Modules};
use super::remote::Remote;
use super::settings::{Archive, Settings};
use super::version::GoVersion;
use super::workspace::private;
use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::image::{Digest, Platform};
use crate::sandbox::{Access, Mount};

/// Where a build sees its Go.
pub const INSIDE: &str = "/go";
/// Where systems keep what a dynamically linked Go needs.
pub(super) const LIBRARIES: [&str; 6] = ["lib", "lib64", "libexec", "usr/lib", "usr/lib64", "usr/libexec"];
/// Most bytes of an archive, and of what is in it.
const ARCHIVE: u64 = 1 << 30;

/// A Go that is on this host.
#[derive(Debug, Clone, PartialEq)]
pub struct Go {
    /// Its version.
    pub version: GoVersion,
    /// Its GOROOT on the host.
    pub root: PathBuf,
    /// What a build must see to run it.
    pub mounts: Vec<Mount>,
}

/// The Go versions that builds may use.
#[derive(Debug)]
pub struct Toolchains {
    settings: Settings,
    dir: PathBuf,
    base: base::Place,
    turn: Mutex<()>,
}

impl Toolchains {
    /// Below the builder's directory, where archives are unpacked into `go`, and the base is.
    pub fn new(settings: &Settings, builder: &Path) -> Self {
        let base = base::Place::below(builder);
        Self { settings: settings.clone(), dir: builder.join("go"), base, turn: Mutex::new(()) }
    }

    /// The root of the libraries that a Go sees which is not statically linked: what is named, or the base where it is
    /// configured and made, or the host's own.
    fn system(&self) -> Result<PathBuf> {
        let made = || self.settings.base.is_some().then(|| self.base.made_from()).transpose();
        Ok(match &self.settings.system {
            Some(named) => named.clone(),
            None if made()?.flatten().is_some() => self.base.root(),
            None => "/".into(),
        })
    }

    /// The Go for a module that needs at least `wanted`: the host's if it is new enough, or else the oldest archive that
    /// is. `exactly` takes that one and no other.
    pub fn choose(
        &self,
        remote: &Remote,
        modules: &Modules,
        wanted: Option<GoVersion>,
        exactly: Option<GoVersion>,
    ) -> Result<Go> {
        let host = self.host()?;
        let fits = |version: GoVersion| match exactly {
            Some(exactly) => version == exactly,
            None => wanted.is_none_or(|wanted| version >= wanted),
        };
        if let Some(host) = host.as_ref().filter(|host| fits(host.version)) {
            return Ok(host.clone());
        }
        let archive = self.settings.archives.iter().filter(|archive| fits(archive.version)).min_by_key(|a| a.version);
        match archive {
            Some(archive) => self.unpacked(remote, modules, archive),
            None => Err(self.none_fits(host.as_ref(), wanted, exactly)),
        }
    }

    fn none_fits(&self, host: Option<&Go>, wanted: Option<GoVersion>, exactly: Option<GoVersion>) -> Fault {
        let mut there: Vec<GoVersion> = host.iter().map(|host| host.version).collect();
        there.extend(self.settings.archives.iter().map(|archive| archive.version));
        let there: Vec<String> = there.iter().map(ToString::to_string).collect();
        let wanted = match (exactly, wanted) {
            (Some(exactly), _) => format!("Go {exactly} is asked for"),
            (None, Some(wanted)) => format!("it needs a newer Go: its go.mod says {wanted}"),
            (None, None) => "Go is needed".to_owned(),
        };
        match there.is_empty() {
            true => Fault::new(
                Kind::Unsupported,
                format!("{wanted}, and this host has none: install Go, or name one in builder.go or builder.archives"),
            ),
            false => Fault::invalid(format!(
                "{wanted}, and this builder has {}; builder.archives can name more",
                there.join(", ")
            )),
        }
    }

    /// The host's own installation, if there is one.
    pub fn host(&self) -> Result<Option<Go>> {
        let root = match &self.settings.go {
            Some(root) => root.clone(),
            None => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let found = std::env::split_paths(&path).find_map(|dir| fs::canonicalize(dir.join("go")).ok());
                match found.as_deref().and_then(|go| go.parent()?.parent()) {
                    Some(root) => root.to_owned(),
                    None => return Ok(None),
                }
            }
        };
        self.installed(&root).map(Some)
    }

    fn installed(&self, root: &Path) -> Result<Go> {
        let what = || format!("{} is no Go installation", root.display());
        let text = fs::read_to_string(root.join("VERSION")).context(what)?;
        let version = text.split_ascii_whitespace().next().unwrap_or_default().parse().context(what)?;
        let read = |source: PathBuf, target: &str| Mount { source, target: target.into(), access: Access::Read };
        let mut mounts = vec![read(root.to_owned(), INSIDE)];
        // Debian keeps the parts that are the same everywhere elsewhere, behind links.
        for entry in fs::read_dir(root).context(what)?.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let inside = Path::new(INSIDE).join(&target);
            let source = fs::canonicalize(entry.path()).context(what)?;
            if source.is_dir() && !source.starts_with(root) {
                mounts.push(Mount { source, target: cleaned(&inside), access: Access::Read });
            }
        }
        if Elf::of(&root.join("bin/go")).context(what)?.interpreter.is_some() {
            let system = self.system()?;
            let libraries = LIBRARIES.iter().filter(|name| system.join(name).is_dir());
            mounts.extend(libraries.map(|name| read(system.join(name), &format!("/{name}"))));
        }
        Ok(Go { version, root: root.to_owned(), mounts })
    }

    fn unpacked(&self, remote: &Remote, modules: &Modules, archive: &Archive) -> Result<Go> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let name = Digest::of(format!("{} {}", archive.from, archive.sum));
        let root = self.dir.join(format!("{}-{}", archive.version, &name.hex()[..16]));
        if !root.exists() {
            self.unpack(remote, modules, archive, &root)
                .context(|| format!("cannot get Go {} from {}", archive.version, archive.from))?;
        }
        self.installed(&root)
    }

    fn unpack(&self, remote: &Remote, modules: &Modules, archive: &Archive, root: &Path) -> Result<()> {
        private(&self.dir)?;
        let bytes = fetch(remote, modules, archive)?;
        let beside = self.dir.join(format!(".{}.new", archive.version));
        files::remove_tree(&beside)?;
        let unpacked = match bytes.starts_with(b"PK") {
            true => unzip(&bytes, &beside),
            false => untar(&bytes, &beside),
        };
        unpacked
            .and_then(|()| match self.installed(&beside)?.version {
                version if version == archive.version => Ok(()),
                other => Err(Fault::invalid(format!(
                    "it holds Go {other}, not {} as builder.archives says",
                    archive.version
                ))),
            })
            .and_then(|()| fs::rename(&beside, root).context(|| format!("cannot make {}", root.display())))
            .map_err(|fault| fault.and_cleanup(files::remove_tree(&beside).map(drop)))
    }
}

/// The archive's bytes, checked.
fn fetch(remote: &Remote, modules: &Modules, archive: &Archive) -> Result<Vec<u8>> {
    if archive.from == "proxy" {
        let host = crate::platform::image_target().first();
        let version = toolchain_version(archive.version, &host);
        return modules.archive(remote, "golang.org/toolchain", &version, &archive.sum);
    }
    let bytes = match archive.from.strip_prefix('/') {
        Some(_) => remote.get(&format!("file://{}", archive.from), ARCHIVE)?,
        None => remote.get(&archive.from, ARCHIVE)?,
    };
    let found = match archive.sum.starts_with("h1:") {
        true => modules::zip_hash(&bytes)?,
        false => Digest::of(&bytes).hex().to_owned(),
    };
    if found != archive.sum {
        return Err(Fault::invalid(format!("its checksum is {found}, not {}", archive.sum)));
    }
    Ok(bytes)
}

/// As the module's versions are written (go.dev/ref/mod, "toolchain").
fn toolchain_version(version: GoVersion, host: &Platform) -> String {
    format!("v0.0.1-go{version}.{}-{}", host.os, host.architecture)
}

/// The path without `.` and `..`.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// A member's place below the installation: what follows `go/` or `golang.org/toolchain@VERSION/`.
fn place(name: &Path) -> Option<PathBuf> {
    let mut parts = name.components();
    match parts.next()? {
        Component::Normal(first) if first == "go" => {}
        Component::Normal(first) if first == "golang.org" => drop(parts.next()?),
        _ => return None,
    }
    let rest = parts.as_path();
    let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && rest.file_name().is_some()).then(|| rest.to_owned())
}

/// A module's archive has no modes: what is in these directories is executable (cmd/go/internal/toolchain).
fn is_program(place: &Path) -> bool {
    place.starts_with("bin") || place.starts_with("pkg/tool")
}

fn write(to: &Path, place: &Path, from: &mut dyn Read, left: &mut u64) -> Result<()> {
    let path = to.join(place);
    let what = || format!("cannot write {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(to)).context(what)?;
    let mode = if is_program(place) { 0o755 } else { 0o644 };
    let mut file: File = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).context(what)?;
    let written = std::io::copy(&mut from.take(*left + 1), &mut file).context(what)?;
    file.flush().context(what)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context(what)?;
    *left = left.checked_sub(written).ok_or_else(|| Fault::invalid("it unpacks to more than any Go is"))?;
    Ok(())
}

fn untar(bytes: &[u8], to: &Path) -> Result<()> {
    let mut left = ARCHIVE;
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    for entry in archive.entries().context(|| "it is no tar archive")? {
        let mut entry = entry.context(|| "it is damaged")?;
        if entry.header().entry_type().is_file()
            && let Some(place) = place(&entry.path().context(|| "it is damaged")?)
        {
            write(to, &place, &mut entry, &mut left)?;
        }
    }
    Ok(())
}

fn unzip(bytes: &[u8], to: &Path) -> Result<()> {
    let mut left = ARCHIVE;
    let broken = |e: zip::result::ZipError| Fault::invalid(format!("it is damaged: {e}"));
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    for at in 0..archive.len() {
        let mut file = archive.by_index(at).map_err(broken)?;
        let name = file.name().map_err(broken)?.into_owned();
        if let Some(place) = place(Path::new(&name)) {
            write(to, &place, &mut file, &mut left)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_land_below_the_installation_or_nowhere() {
        for (name, expected) in [
            ("go/bin/go", Some("bin/go")),
            ("golang.org/toolchain@v0.0.1-go1.24.4.freebsd-amd64/pkg/tool/x", Some("pkg/tool/x")),
            ("go/../../etc/passwd", None),
            ("/go/bin/go", None),
            ("other/bin/go", None),
            ("go/", None),
        ] {
            assert_eq!(place(Path::new(name)).as_deref(), expected.map(Path::new), "{name}");
        }
        let freebsd = "freebsd/amd64".parse().unwrap();
        assert_eq!(toolchain_version("1.24.4".parse().unwrap(), &freebsd), "v0.0.1-go1.24.4.freebsd-amd64");
        assert_eq!(cleaned(Path::new("/go/../share/go-1.23/src")), Path::new("/share/go-1.23/src"));
    }

    #[test]
    fn an_archive_with_another_checksum_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("go.tar.gz");
        fs::write(&file, "not what was promised").unwrap();
        let (version, from) = ("1.99.0".parse().unwrap(), file.display().to_string());
        let archive = Archive { version, from, sum: "0".repeat(64) };
        let settings = Settings { archives: vec![archive], ..Settings::default() };
        let toolchains = Toolchains::new(&settings, temp.path());
        let registries = crate::image::Settings::new(crate::platform::image_target()).registries;
        let remote = Remote::new(&registries, std::time::Duration::from_secs(1)).unwrap();
        let modules = Modules::new(temp.path().join("m"), None);
        let fault = toolchains.choose(&remote, &modules, Some(version), None).unwrap_err().to_string();
        assert!(fault.contains("its checksum is") && fault.contains(&"0".repeat(64)), "{fault}");
        assert_eq!(files::names(&temp.path().join("go")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_go_that_needs_libraries_sees_those_of_the_system_that_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let (root, system) = (temp.path().join("go"), temp.path().join("system"));
        for dir in ["go/bin", "system/lib", "system/usr/lib", "system/home"] {
            fs::create_dir_all(temp.path().join(dir)).unwrap();
        }
        fs::write(root.join("VERSION"), "go1.20.1\n").unwrap();
        // This test needs a loader, too.
        fs::copy(std::env::current_exe().unwrap(), root.join("bin/go")).unwrap();
        let lent = |settings: &Settings| {
            let go = Toolchains::new(settings, temp.path()).host().unwrap().unwrap();
            assert!(go.mounts.iter().all(|mount| mount.access == Access::Read));
            go.mounts.into_iter().map(|mount| (mount.source, mount.target)).collect::<Vec<_>>()
        };
        let of = |system: &Path| {
            [(root.clone(), "/go"), (system.join("lib"), "/lib"), (system.join("usr/lib"), "/usr/lib")]
                .map(|(a, b)| (a, b.into()))
        };
        let mut settings = Settings { go: Some(root.clone()), system: Some(system.clone()), ..Settings::default() };
        assert_eq!(lent(&settings), of(&system));
        // The base that init made is lent where nothing else is named; until it is made, what the host has.
        let sum = Digest::of("archive");
        settings.base = Some(base::Settings { from: base::Origin::File("/archive".into()), sum: sum.clone() });
        assert_eq!(lent(&settings), of(&system));
        settings.system = None;
        assert!(lent(&settings).contains(&("/usr/lib".into(), "/usr/lib".into())));
        let base = temp.path().join("base/root");
        for dir in ["lib", "usr/lib", "home"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        files::replace_json(&temp.path().join("base/sum"), &sum).unwrap();
        assert_eq!(lent(&settings), of(&base));
        settings.base = None;
        assert!(lent(&settings).contains(&("/usr/lib".into(), "/usr/lib".into())));
    }

    #[test]
    fn a_host_without_a_fitting_go_says_so() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("go");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("VERSION"), "go1.20.1\ntime x\n").unwrap();
        fs::copy(std::env::current_exe().unwrap(), root.join("bin/go")).unwrap();
        let settings = Settings { go: Some(root), ..Settings::default() };
        let toolchains = Toolchains::new(&settings, temp.path());
        let registries = crate::image::Settings::new(crate::platform::image_target()).registries;
        let remote = Remote::new(&registries, std::time::Duration::from_secs(1)).unwrap();
        let modules = Modules::new(temp.path().join("m"), None);
        let choose = |wanted: &str| toolchains.choose(&remote, &modules, Some(wanted.parse().unwrap()), None);
        assert_eq!(choose("1.20").unwrap().version, "1.20.1".parse().unwrap());
        let fault = choose("1.21").unwrap_err().to_string();
        assert!(fault.contains("needs a newer Go") && fault.contains("1.21.0") && fault.contains("1.20.1"), "{fault}");
    }
}
