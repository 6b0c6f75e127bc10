//! Go functions, compiled in a sandbox: from a source tree to an image in the local store.
//!
//! ```text
//!  source tree ─ copied in ─> recipe ─> Go version ─> modules ─────> job: go build ─> layout ─> Store
//!  (untrusted)   (tree)       (recipe)  (toolchain)   (fetched by    (no network)     (output)
//!                                                      this program)
//! ```
//!
//! | module | room |
//! |---|---|
//! | [`tree`] | a source tree copied in, following no link |
//! | [`recipe`] | what it is: a plain module, or a template of faas-cli with a handler in it |
//! | [`toolchain`], [`version`] | which Go compiles |
//! | [`base`] | the libraries that a Go sees which is not statically linked, where init made them |
//! | [`source`] | source trees from Git repositories |
//! | [`modules`] | dependencies: what go.sum lists, fetched and checked |
//! | [`stack`] | stack.yml, and the laying out of template and handler |
//! | [`parcel`] | what faas-cli sends to a remote builder: signatures, sealed secrets |
//! | `asked` | remote builds, and images that name a repository |
//! | [`cache`] | what is kept between builds, and who may write to it |
//! | `compile` | the jobs |
//! | [`output`], [`elf`] | the image, the same bytes for the same inputs |
//! | [`remote`] | HTTP with bounds |
//! | [`settings`] | `[builder]` of the configuration |
//!
//! What a job of a build sees, and nothing else:
//!
//! | path | what | may write |
//! |---|---|---|
//! | `/go` | the Go installation | no |
//! | `/src` | the copy of the source | no |
//! | `/modules` | modules, as a proxy in a directory | no |
//! | `/cache/mod`, `/cache/build` | the owner's caches | yes |
//! | `/work` | for this job only | yes |
//! | `/run/secrets` | build secrets, if there are any | no |
//!
//! Invariants:
//! - No job of a build has a network, ever: what is fetched is fetched by this program, from the module proxy and the Git
//!   hosts of the configuration, and checked before a job sees it.
//! - What one owner's builds write, no other owner's build reads.
//! - Go runs as [`crate::job::NOBODY`], on a root that is thrown away, under limits; what it leaves is read as data.
//! - cgo is off: no C compiler runs, the programs are static, and any host compiles for any other.
//!
//! Deliberately absent: executing Dockerfiles, `go generate`, plug-ins, languages other than Go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::config::Config;
use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::image::{self, Digest, Image, Platform, Reference, Silent, Source, Store, Target};
use crate::job::Jobs;

mod asked;
pub mod base;
pub mod cache;
mod compile;
pub mod elf;
pub mod modules;
pub mod output;
pub mod parcel;
pub mod recipe;
pub mod remote;
pub mod settings;
pub mod source;
pub mod stack;
#[cfg(test)]
mod tests;
pub mod toolchain;
pub mod tree;
pub mod version;
pub mod workspace;

pub use settings::Settings;
pub use version::GoVersion;

use cache::Caches;
use compile::Compilation;
use modules::Modules;
use output::{Base, Parts};
use recipe::Recipe;
use remote::Remote;
use source::Turns;
use toolchain::{Go, Toolchains};
use tree::Copier;
use workspace::{Workspace, private};

/// Changes when the same inputs are to give another image.
const RECIPE_VERSION: &str = "1";

/// What is to be built.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// The source tree: a directory that somebody else wrote.
    pub source: PathBuf,
    /// Further trees laid over the copy, each at a path in it.
    pub over: Vec<(PathBuf, PathBuf)>,
    /// Files that are put into the copy of the tree, in place of what is there: generated code. Paths are relative.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The main package, as a path inside the tree; empty or `.` for its top.
    pub package: String,
    /// Whose caches are used. Builds of one owner trust each other; take what they have in common, such as a repository.
    pub owner: String,
    /// What the program is for; absent: this host.
    pub platform: Option<Platform>,
    /// The Go version, if not the one that go.mod asks for.
    pub go: Option<GoVersion>,
    /// Build arguments: environment of the compiler. Only those in [`ARGUMENTS`] count.
    pub args: BTreeMap<String, String>,
    /// Build secrets, shown as files in /run/secrets.
    pub secrets: BTreeMap<String, Vec<u8>>,
}

/// Build arguments that reach the compiler.
pub const ARGUMENTS: [&str; 5] = ["GOFLAGS", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GODEBUG"];

/// What a build made.
#[derive(Debug)]
pub struct Built {
    /// The image, in the local store under the name that was asked for.
    pub image: Image,
    /// Everything that was printed.
    pub log: String,
    /// Whether the same inputs had been built before.
    pub cached: bool,
}

/// Hears how a build gets on. May be called from several threads.
pub trait Progress: Sync {
    /// A new step begins: a few words.
    fn step(&self, what: &str);
    /// The compiler or a test printed this.
    fn output(&self, text: &str);
}

impl Progress for Silent {
    fn step(&self, _: &str) {}
    fn output(&self, _: &str) {}
}

/// Passes progress on and keeps it.
struct Log<'a> {
    progress: &'a dyn Progress,
    text: Mutex<String>,
}

impl Log<'_> {
    fn step(&self, what: &str) {
        self.progress.step(what);
        self.keep(&format!("{what}\n"));
    }

    fn output(&self, text: &str) {
        self.progress.output(text);
        self.keep(text);
    }

    fn keep(&self, text: &str) {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
    }
}

/// Builds Go programs on this host.
pub struct Builder {
    settings: Settings,
    dir: PathBuf,
    store: Arc<Store>,
    jobs: Jobs,
    remote: Remote,
    registries: image::Registries,
    modules: Modules,
    toolchains: Toolchains,
    caches: Caches,
    /// Held while a shared cache is being filled.
    standard: Mutex<()>,
    /// Builds that run now.
    running: Mutex<usize>,
    free: Condvar,
    /// Sets of inputs that are being built.
    inputs: Turns<Digest>,
    /// Commits that are being fetched.
    checkouts: Turns<String>,
}

impl Builder {
    /// A builder with its directories in `builder` of the state directory. Nothing is run or fetched yet.
    pub fn open(config: &Config, platform: crate::platform::Platform, store: Arc<Store>) -> Result<Self> {
        let settings = config.builder.clone();
        let dir = config.root.join("builder");
        private(&dir.join("work"))?;
        // Its way there is root's alone; builds that are shown it are not root.
        workspace::open_to_all(&dir.join("modules"))?;
        let toolchains = Toolchains::new(&settings, &dir);
        let proxy = settings.proxy.clone().or_else(|| default_proxy(toolchains.host().ok().flatten().as_ref()));
        Ok(Self {
            jobs: Jobs::new(&config.root, &config.realm, platform),
            remote: Remote::new(&config.images.settings().registries, settings.time)?,
            registries: config.images.settings().registries,
            modules: Modules::new(dir.join("modules"), proxy),
            caches: Caches::new(dir.clone()),
            toolchains,
            store,
            dir,
            settings,
            standard: Mutex::default(),
            running: Mutex::default(),
            free: Condvar::new(),
            inputs: Turns::default(),
            checkouts: Turns::default(),
        })
    }

    /// For the daemon's start: removes what a crash left, and what has not been used for long.
    pub fn recover(&self) -> Result<()> {
        workspace::sweep(&self.dir.join("work"))?;
        self.caches.expire(self.settings.keep)?;
        self.expire_sources()
    }

    /// Runs one-shot sandboxes, for those who run what was built.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Builds, and keeps the image in the local store under `name`. The same inputs are built once. A source that cannot
    /// be built, for whatever reason that lies in it, is [`Kind::Invalid`], with the compiler's words.
    pub fn build(&self, request: &BuildRequest, name: &Reference, progress: &dyn Progress) -> Result<Built> {
        self.build_and(request, name, false, progress)
    }

    /// [`Builder::build`]; with `push` the image also goes to its registry.
    fn build_and(
        &self,
        request: &BuildRequest,
        name: &Reference,
        push: bool,
        progress: &dyn Progress,
    ) -> Result<Built> {
        let log = Log { progress, text: Mutex::default() };
        let _slot = self.slot();
        let (image, cached) =
            self.build_logged(request, name, push, &log).context(|| format!("cannot build {name}"))?;
        let text = log.text.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Built { image, log: text, cached })
    }

    fn build_logged(
        &self,
        request: &BuildRequest,
        name: &Reference,
        push: bool,
        log: &Log<'_>,
    ) -> Result<(Image, bool)> {
        let workspace = Workspace::make(&self.dir.join("work"))?;
        let source = workspace.path("src");
        let mut copier = Copier::new(&source, self.settings.source)?;
        copier.tree(&request.source, Path::new(""))?;
        for (tree, at) in &request.over {
            copier.tree(tree, at)?;
        }
        for (path, bytes) in &request.files {
            copier.bytes(path, bytes)?;
        }
        let recipe = Recipe::read(&source, &request.package)?;
        let args = self.arguments(request, log)?;
        let go = self.toolchains.choose(&self.remote, &self.modules, recipe.go, request.go)?;
        let platform = request.platform.clone().unwrap_or_else(|| crate::platform::image_target().first());
        let base = Base::read(&go.root)?;
        let watchdog = recipe.watchdog.then(|| self.watchdog(&platform)).transpose()?;
        let inputs = Digest::of(
            [
                RECIPE_VERSION,
                tree::digest(&source)?.as_str(),
                &format!("{recipe:?}"),
                &go.version.to_string(),
                &platform.to_string(),
                &format!("{args:?}"),
                base.digest().as_str(),
                watchdog.as_ref().map(Digest::of).as_ref().map_or("", Digest::as_str),
            ]
            .join("\n"),
        );
        self.inputs.take(&inputs, || {
            // What is pushed is made anew: its blobs are not kept.
            let before = if push { None } else { self.made_before(&inputs, name)? };
            if let Some(image) = before {
                log.step("nothing has changed: it is the image that was built before");
                return Ok((image, true));
            }
            let build = Inputs { request, source: &source, recipe, args, go, platform, base, watchdog };
            let image = self.make(build, &workspace, name, push, log)?;
            self.caches.keep_result(&inputs, &image.manifest)?;
            Ok((image, false))
        })
    }

    fn make(
        &self,
        build: Inputs<'_>,
        workspace: &Workspace,
        name: &Reference,
        push: bool,
        log: &Log<'_>,
    ) -> Result<Image> {
        let Inputs { request, source, recipe, args, go, platform, base, watchdog } = build;
        let mut absent = Vec::new();
        if !recipe.vendored && !recipe.sums.is_empty() {
            log.step("fetching modules");
            absent = self.modules.provide(&self.remote, &recipe.sums)?;
        }
        // Perhaps because of them.
        let explained = |fault: Fault| match absent.first() {
            Some(first) => Fault::new(fault.kind(), format!("{fault}\n(could not be fetched: {first})")),
            None => fault,
        };
        let key = format!("{}-{}-{}", go.version, platform.os, platform.architecture);
        self.prepare_standard(&go, &platform, &key, log)?;
        let owned = self.caches.owned(&request.owner, &key)?;
        let secrets = match request.secrets.is_empty() {
            true => None,
            false => Some(place_secrets(workspace, &request.secrets)?),
        };
        let compilation = Compilation {
            go: &go,
            platform: &platform,
            owned: &owned,
            workspace,
            recipe: &recipe,
            modules: self.modules.dir(),
            args: &args,
            secrets,
        };
        // Another system's tests cannot run here.
        if let Some(tests) = recipe.tests.as_ref().filter(|_| platform.os == std::env::consts::OS) {
            log.step("testing");
            self.test(&compilation, tests, log).map_err(&explained)?;
        }
        log.step(&format!("compiling with Go {} for {platform}", go.version));
        let compiled = self.compile(&compilation, log).map_err(&explained)?;
        let program = output::program(&compiled, &platform)?;
        // Or it would be written to the disk with the image.
        files::remove(&compiled)?;
        let layout = workspace.path("image");
        let parts = Parts { base: &base, program, watchdog, source, recipe: &recipe, platform: &platform };
        output::write_layout(&layout, parts)?;
        log.step(&format!("keeping image {name}"));
        let store = self.store.aiming_at(Target::exactly(platform.clone()));
        let mut images = store.load(Source::path(&layout), Some(name), &image::Silent)?;
        if push {
            log.step(&format!("pushing {name}"));
            image::registry::push(&self.registries, &layout, name)?;
        }
        images.pop().ok_or_else(|| Fault::new(Kind::System, "the image was not kept"))
    }

    /// The image that these inputs gave, under `name`, if its layers are still here.
    fn made_before(&self, inputs: &Digest, name: &Reference) -> Result<Option<Image>> {
        let Some(manifest) = self.caches.result(inputs)? else { return Ok(None) };
        self.store.named(&manifest, name)
    }

    fn arguments(&self, request: &BuildRequest, log: &Log<'_>) -> Result<BTreeMap<String, String>> {
        let mut args = BTreeMap::new();
        for (name, value) in &request.args {
            match (name.as_str(), value.as_str()) {
                ("GO111MODULE", "off") => {
                    return Err(Fault::new(
                        Kind::Unsupported,
                        "GO111MODULE=off is not supported: give the function a go.mod",
                    ));
                }
                ("CGO_ENABLED", "1") => {
                    return Err(Fault::new(
                        Kind::Unsupported,
                        "CGO_ENABLED=1 is not supported: this builder has no C compiler",
                    ));
                }
                ("GO111MODULE" | "CGO_ENABLED" | "GOPROXY", _) | (_, "") => {}
                (name, value) if ARGUMENTS.contains(&name) => drop(args.insert(name.to_owned(), value.to_owned())),
                (name, _) => log.step(&format!("build argument {} has no meaning here", name.escape_debug())),
            }
        }
        Ok(args)
    }

    /// The of-watchdog for `platform`.
    fn watchdog(&self, platform: &Platform) -> Result<Vec<u8>> {
        let found = || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|dir| dir.join("of-watchdog")).find(|file| file.is_file())
        };
        let wanted = format!("{}/{}", platform.os, platform.architecture);
        let path = self.settings.watchdog.clone().or_else(found).ok_or_else(|| {
            Fault::new(
                Kind::Unsupported,
                "its template wants an of-watchdog in the image, and this host has none: install it, or name it in builder.watchdog",
            )
        })?;
        let bytes = std::fs::read(&path).context(|| format!("cannot read {}", path.display()))?;
        let elf = elf::Elf::read(&bytes).context(|| path.display().to_string())?;
        if elf.platform != wanted || elf.interpreter.is_some() {
            return Err(Fault::new(
                Kind::Unsupported,
                format!(
                    "its template wants an of-watchdog in the image, statically linked and for {wanted}; {} is not: name another in builder.watchdog",
                    path.display()
                ),
            ));
        }
        Ok(bytes)
    }

    fn slot(&self) -> Slot<'_> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= self.settings.parallel.max(1) {
            running = self.free.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Slot(self)
    }
}

/// Everything that decides what comes out of a build.
struct Inputs<'a> {
    request: &'a BuildRequest,
    source: &'a Path,
    recipe: Recipe,
    args: BTreeMap<String, String>,
    go: Go,
    platform: Platform,
    base: Base,
    watchdog: Option<Vec<u8>>,
}

/// One of the builds that may run at once.
struct Slot<'a>(&'a Builder);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.free.notify_one();
    }
}

/// Go's own setting: the environment's, or what the installation came with. Of a list, its first proxy.
fn default_proxy(host: Option<&Go>) -> Option<String> {
    let installed = || {
        let text = std::fs::read_to_string(host?.root.join("go.env")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("GOPROXY=")).map(str::to_owned)
    };
    let list = std::env::var("GOPROXY").ok().filter(|list| !list.is_empty()).or_else(installed)?;
    list.split([',', '|']).find(|proxy| proxy.contains("://")).map(str::to_owned)
}

fn place_secrets(workspace: &Workspace, secrets: &BTreeMap<String, Vec<u8>>) -> Result<PathBuf> {
    let dir = workspace.writable("secrets")?;
    let mut copier = Copier::again(&dir);
    for (name, value) in secrets {
        crate::secrets::check_name(name)?;
        copier.bytes(Path::new(name), value)?;
    }
    Ok(dir)
}
