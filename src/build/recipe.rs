//! What a source tree is and how its image is to look: a plain Go module, or a template of faas-cli with a handler in it.
//!
//! faas-cli lays a template and a handler out as one tree: the template's files at the top, the handler in `function/`.
//! Stock templates say in a Dockerfile what is to become of them. No Dockerfile is executed here; of its last stage
//! ENV, CMD, ENTRYPOINT and WORKDIR are read, because they tell how the program wants to be started.

use std::collections::BTreeMap;
use std::path::Path;

use super::tree::{self, Copier};
use super::version::{self, GoVersion, directive};
use crate::fault::{Fault, Kind, Result};

/// Where a handler is in a template's tree.
const HANDLER: &str = "function";
/// Where stock templates have their program, in the image.
const HOME: &str = "/home/app";

/// How to build a source tree.
#[derive(Debug, PartialEq)]
pub struct Recipe {
    /// The module's directory, relative to the tree's top; empty for the top itself.
    pub module: String,
    /// The main package, relative to the module, `./…`.
    pub package: String,
    /// The least Go version that any of its modules asks for.
    pub go: Option<GoVersion>,
    /// The texts of its go.sum files.
    pub sums: Vec<String>,
    /// Whether its dependencies came with it.
    pub vendored: bool,
    /// Whether it is a template with a handler.
    pub template: bool,
    /// The directory whose tests must pass, relative to the tree's top.
    pub tests: Option<String>,
    /// Environment of the image.
    pub env: BTreeMap<String, String>,
    /// The image's working directory; the program is in it.
    pub workdir: String,
    /// The image's command.
    pub argv: Vec<String>,
    /// Whether an of-watchdog is to be beside the program.
    pub watchdog: bool,
    /// A directory of files to be beside the program, relative to the tree's top, and its name there.
    pub files: Option<(String, String)>,
}

impl Recipe {
    /// Looks at the copied tree at `top`, in which main package `package` (relative to the top) is wanted.
    pub fn read(top: &Path, package: &str) -> Result<Self> {
        let module = module_of(top, package)?;
        let template = module.is_empty() && top.join(HANDLER).is_dir() && is_top(package);
        if template {
            fold(top)?;
        }
        let inside = |name: &str| if module.is_empty() { name.to_owned() } else { format!("{module}/{name}") };
        let work = tree::read_text(top, &inside("go.work"))?;
        let mut modules = vec![module.clone()];
        modules.extend(work.iter().flat_map(|work| used(work)).map(|dir| inside(&dir)));
        let (mut go, mut sums) = (work.as_deref().map(version::wanted).transpose()?.flatten(), Vec::new());
        for dir in &modules {
            let text = tree::read_text(top, &join(dir, "go.mod"))?;
            go = go.max(text.as_deref().map(version::wanted).transpose()?.flatten());
            sums.extend(tree::read_text(top, &join(dir, "go.sum"))?);
        }
        sums.extend(tree::read_text(top, &inside("go.work.sum"))?);
        let mut recipe = Self {
            package: relative(package, &module),
            go,
            sums,
            vendored: tree::read(top, &inside("vendor/modules.txt"))?.is_some(),
            template,
            tests: None,
            env: BTreeMap::new(),
            workdir: HOME.into(),
            argv: vec![format!("{HOME}/handler")],
            watchdog: false,
            files: None,
            module,
        };
        if template {
            recipe.tests = has_tests(&top.join(HANDLER)).then(|| HANDLER.to_owned());
            if top.join(HANDLER).join("static").is_dir() {
                recipe.files = Some((format!("{HANDLER}/static"), "static".into()));
            }
        }
        if let (true, Some(dockerfile)) = (is_top(package), tree::read_text(top, "Dockerfile")?) {
            recipe.start_as(&Stage::last(&dockerfile));
        }
        Ok(recipe)
    }

    /// Takes over how a Dockerfile starts its program.
    fn start_as(&mut self, stage: &Stage) {
        self.env = stage.env.clone();
        if let Some(workdir) = stage.workdir.as_ref().filter(|dir| dir.starts_with('/')) {
            self.workdir = workdir.clone();
        }
        let named = |name: &str| stage.argv.first().and_then(|word| word.rsplit('/').next()) == Some(name);
        self.watchdog = named("fwatchdog") || named("of-watchdog");
        let program = if self.watchdog { "fwatchdog" } else { "handler" };
        self.argv = vec![format!("{}/{program}", self.workdir.trim_end_matches('/'))];
        self.argv.extend(stage.argv.iter().skip(1).cloned());
    }
}

fn is_top(package: &str) -> bool {
    matches!(package, "" | "." | "./")
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// The directory, from the package upwards, that has a go.mod.
pub fn module_of(top: &Path, package: &str) -> Result<String> {
    let clean = package.trim_start_matches("./").trim_end_matches('/');
    let clean = if clean == "." { "" } else { clean };
    if clean.split('/').any(|part| part == ".." || part.contains('\0')) || clean.starts_with(['/', '-']) {
        return Err(Fault::invalid(format!(
            "package ({}) is invalid: a path inside the source",
            package.escape_debug()
        )));
    }
    if !clean.is_empty() && !top.join(clean).is_dir() {
        return Err(Fault::invalid(format!("the source has no directory {clean}")));
    }
    let mut dir = clean;
    loop {
        if tree::read(top, &join(dir, "go.mod"))?.is_some() {
            return Ok(dir.to_owned());
        }
        match dir.rsplit_once('/') {
            Some((parent, _)) => dir = parent,
            None if dir.is_empty() => return Err(no_go(top)),
            None => dir = "",
        }
    }
}

/// The package as Go names it from its module: `./…`.
pub fn relative(package: &str, module: &str) -> String {
    let clean = package.trim_start_matches("./").trim_end_matches('/');
    let rest = clean.strip_prefix(module).unwrap_or(clean).trim_start_matches('/');
    if rest.is_empty() || rest == "." { ".".into() } else { format!("./{rest}") }
}

fn no_go(top: &Path) -> Fault {
    let yaml = tree::read_text(top, "template.yml").ok().flatten();
    let language = yaml.as_deref().and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("language:")).map(|name| name.trim().trim_matches(['"', '\'']))
    });
    let what = match language {
        Some(language) => format!("template {} is not Go", language.escape_debug()),
        None => "the source has no go.mod".to_owned(),
    };
    Fault::new(
        Kind::Unsupported,
        format!(
            "{what}: this builder compiles Go modules, that is a tree with a go.mod and a main package at its top, such as the templates golang-http, golang-middleware, go-http and go-call"
        ),
    )
}

/// The directories that a go.work uses, but for `.`.
fn used(work: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in work.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let dir = match line {
            ")" => {
                inside = false;
                continue;
            }
            line if inside => line,
            line => match line.strip_prefix("use").map(str::trim) {
                Some("(") => {
                    inside = true;
                    continue;
                }
                Some(dir) => dir,
                None => continue,
            },
        };
        let dir = dir.trim_matches('"').trim_start_matches("./").trim_end_matches('/');
        if !dir.is_empty() && dir != "." && !dir.split('/').any(|part| part == "..") {
            found.push(dir.to_owned());
        }
    }
    found
}

/// What the stock golang-http template does before it builds (its modules-cleanup.sh): the handler's module becomes the
/// whole tree's, so that its dependencies count for the template's main package, too. Templates with a go.work need none of it.
fn fold(top: &Path) -> Result<()> {
    let handler = |name: &str| format!("{HANDLER}/{name}");
    let (None, Some(text)) = (tree::read_text(top, "go.work")?, tree::read_text(top, &handler("go.mod"))?) else {
        return Ok(());
    };
    let keeps = |line: &&str| !line.contains(" handler/function") && !line.contains("\thandler/function");
    let mut folded = String::new();
    for line in text.lines() {
        let line = match line.trim_start().starts_with("module ") {
            true => "module handler".to_owned(),
            false => line.replace("=> ./", "=> ./function/"),
        };
        if keeps(&line.as_str()) {
            folded.push_str(&line);
            folded.push('\n');
        }
    }
    std::fs::remove_file(top.join(handler("go.mod")))?;
    let mut copier = Copier::again(top);
    copier.bytes(Path::new("go.mod"), folded.as_bytes())?;
    if let Some(sum) = tree::read(top, &handler("go.sum"))? {
        copier.bytes(Path::new("go.sum"), &sum)?;
    }
    if let Some(list) = tree::read_text(top, &handler("vendor/modules.txt"))? {
        let list: String =
            list.lines().filter(keeps).map(|line| line.replace("=> ./", "=> ./function/") + "\n").collect();
        std::fs::rename(top.join(handler("vendor")), top.join("vendor"))?;
        copier.bytes(Path::new("vendor/modules.txt"), list.as_bytes())?;
    }
    Ok(())
}

fn has_tests(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => entry.file_name() != "vendor" && has_tests(&entry.path()),
        _ => entry.file_name().to_string_lossy().ends_with("_test.go"),
    })
}

/// What the last stage of a Dockerfile says about starting.
#[derive(Debug, Default, PartialEq)]
struct Stage {
    env: BTreeMap<String, String>,
    workdir: Option<String>,
    argv: Vec<String>,
}

impl Stage {
    fn last(dockerfile: &str) -> Self {
        let (mut stage, mut entrypoint, mut command) = (Self::default(), Vec::new(), Vec::new());
        let text = dockerfile.replace("\\\r\n", " ").replace("\\\n", " ");
        for line in text.lines() {
            let line = line.trim();
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let rest = rest.trim();
            match word.to_ascii_uppercase().as_str() {
                "FROM" => (stage, entrypoint, command) = Default::default(),
                "ENV" => stage.env.extend(variables(rest)),
                "WORKDIR" => stage.workdir = Some(rest.to_owned()),
                "ENTRYPOINT" => entrypoint = words(rest),
                "CMD" => command = words(rest),
                _ => {}
            }
        }
        stage.argv = entrypoint.into_iter().chain(command).collect();
        stage
    }
}

/// `["a", "b"]`, or a line for a shell, of which only the words count.
fn words(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| text.split_whitespace().map(str::to_owned).collect())
}

/// `A=1 B="two words"` or `A the rest`.
fn variables(text: &str) -> Vec<(String, String)> {
    match text.split_once(['=', ' ', '\t']) {
        Some((name, _)) if text[name.len()..].starts_with('=') => {}
        Some((name, value)) => return vec![(name.to_owned(), value.trim().trim_matches('"').to_owned())],
        None => return Vec::new(),
    }
    let (mut found, mut quote, mut word) = (Vec::new(), None, String::new());
    for c in text.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c.is_whitespace() => {
                if let Some((name, value)) = std::mem::take(&mut word).split_once('=') {
                    found.push((name.to_owned(), value.to_owned()));
                }
            }
            (_, c) => word.push(c),
        }
    }
    found
}

/// The path of the module whose go.mod this is.
pub fn module_path(go_mod: &str) -> Option<&str> {
    directive(go_mod, "module").map(|path| path.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        temp
    }

    #[test]
    fn a_plain_module_is_found_from_its_package_upwards() {
        let tree = tree_of(&[("a/go.mod", "module a\ngo 1.22\n"), ("a/cmd/x/main.go", ""), ("go.mod", "module top")]);
        let recipe = Recipe::read(tree.path(), "./a/cmd/x").unwrap();
        assert_eq!((recipe.module.as_str(), recipe.package.as_str()), ("a", "./cmd/x"));
        assert_eq!(recipe.go, Some("1.22".parse().unwrap()));
        assert!(!recipe.template && recipe.tests.is_none() && recipe.argv == ["/home/app/handler"]);
        for bad in ["../x", "a/../../b", "-toolexec=x", "/etc", "missing"] {
            assert!(Recipe::read(tree.path(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_go_is_named() {
        let tree = tree_of(&[("template.yml", "language: python3-http\n"), ("index.py", "")]);
        let fault = Recipe::read(tree.path(), ".").unwrap_err();
        assert!(fault.to_string().starts_with("template python3-http is not Go: this builder compiles Go modules"));
    }

    #[test]
    fn a_workspace_template_keeps_its_modules() {
        let tree = tree_of(&[
            ("go.mod", "module handler\ngo 1.24.0\n"),
            ("go.work", "go 1.24.0\n\nuse (\n\t.\n\t./function // here\n)\n"),
            ("function/go.mod", "module handler/function\ngo 1.25.0\n"),
            ("function/go.sum", "a v1 h1:x\n"),
            ("function/static/a.txt", "x"),
            ("function/handler_test.go", ""),
            (
                "Dockerfile",
                "FROM a AS b\nENV X=1\nFROM c\nWORKDIR /srv\nENV fprocess=\"./handler\"\nENV mode=\"http\" two='b c'\nCMD [\"./fwatchdog\"]\n",
            ),
        ]);
        let recipe = Recipe::read(tree.path(), ".").unwrap();
        assert!(recipe.template && recipe.watchdog);
        assert_eq!(recipe.go, Some("1.25".parse().unwrap()));
        assert_eq!(recipe.sums, ["a v1 h1:x\n"]);
        assert_eq!(recipe.argv, ["/srv/fwatchdog"]);
        let env: Vec<_> = recipe.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(env, ["fprocess=./handler", "mode=http", "two=b c"]);
        assert_eq!(recipe.files, Some(("function/static".into(), "static".into())));
        assert_eq!(recipe.tests.as_deref(), Some("function"));
    }

    #[test]
    fn the_stock_http_template_is_folded_as_its_script_does() {
        let tree = tree_of(&[
            ("go.mod", "module handler\n\ngo 1.24.0\n"),
            ("go.sum", "old\n"),
            ("main.go", "package main"),
            (
                "function/go.mod",
                "module handler/function\n\ngo 1.24.0\n\nrequire x/y v1.0.0\nreplace handler/function => ./\nreplace z => ./z\n",
            ),
            ("function/go.sum", "new v1 h1:x\n"),
        ]);
        let recipe = Recipe::read(tree.path(), ".").unwrap();
        let read = |name: &str| std::fs::read_to_string(tree.path().join(name)).unwrap();
        assert_eq!(read("go.mod"), "module handler\n\ngo 1.24.0\n\nrequire x/y v1.0.0\nreplace z => ./function/z\n");
        assert_eq!(recipe.sums, ["new v1 h1:x\n"]);
        assert!(!tree.path().join("function/go.mod").exists());
    }

    #[test]
    fn old_spellings_of_a_dockerfile_are_read() {
        let stage = Stage::last("from x\nenv A b c\nENTRYPOINT [\"/a\"]\nCMD -x \\\n  -y\n");
        assert_eq!(stage.argv, ["/a", "-x", "-y"]);
        assert_eq!(stage.env, BTreeMap::from([("A".to_owned(), "b c".to_owned())]));
        assert_eq!(Stage::last(""), Stage::default());
    }
}
