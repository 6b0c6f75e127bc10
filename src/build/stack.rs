//! stack.yml, as faas-cli reads it, as far as building goes; and the laying out of template and handler.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::BuildRequest;
use crate::fault::{Context, Fault, Result};
use crate::image::{Platform, Reference};

/// Where templates are looked for, beside the stack file.
const TEMPLATES: [&str; 2] = ["template", "templates"];

/// One function of a stack file that is to be built.
#[derive(Debug)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// What to call its image.
    pub image: Reference,
    /// How to build it.
    pub request: BuildRequest,
}

#[derive(Deserialize)]
struct Stack {
    #[serde(default)]
    functions: BTreeMap<String, Function>,
    #[serde(default)]
    configuration: Configuration,
}

#[derive(Deserialize, Default)]
struct Configuration {
    #[serde(default)]
    copy: Vec<String>,
}

#[derive(Deserialize)]
struct Function {
    #[serde(default)]
    lang: String,
    #[serde(default)]
    handler: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    skip_build: bool,
    #[serde(default)]
    build_args: BTreeMap<String, String>,
    #[serde(default)]
    build_secrets: BTreeMap<String, String>,
    #[serde(default)]
    platforms: Option<String>,
}

#[derive(Deserialize)]
struct Template {
    #[serde(default)]
    handler_folder: Option<String>,
}

/// The functions of the stack file at `path` whose names `filter` lets through, by name.
pub fn read(path: &Path, filter: &dyn Fn(&str) -> bool) -> Result<Vec<Wanted>> {
    let what = || path.display().to_string();
    let text = std::fs::read_to_string(path).context(what)?;
    let text = substitute(&text, |name| std::env::var(name).ok()).context(what)?;
    let stack: Stack = serde_yaml_ng::from_str(&text).map_err(|e| Fault::invalid(e.to_string())).context(what)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wanted = stack.functions.into_iter().filter(|(name, function)| filter(name) && !function.skip_build);
    wanted
        .map(|(name, function)| {
            function.wanted(&name, dir, &stack.configuration.copy).context(|| format!("function {name}"))
        })
        .collect()
}

impl Function {
    fn wanted(self, name: &str, dir: &Path, copy: &[String]) -> Result<Wanted> {
        if self.image.is_empty() || self.handler.is_empty() || self.lang.is_empty() {
            return Err(Fault::invalid("image, handler and lang are needed"));
        }
        let image: Reference = self.image.parse()?;
        let handler = dir.join(&self.handler);
        if !handler.is_dir() {
            return Err(Fault::invalid(format!("its handler {} is no directory", handler.display())));
        }
        let platforms: Vec<&str> = self.platforms.iter().flat_map(|list| list.split(',')).map(str::trim).collect();
        let platform = match platforms[..] {
            [] | [""] => None,
            [one] => Some(one.parse::<Platform>()?),
            _ => return Err(Fault::invalid("it names several platforms; an image here is for one")),
        };
        let read = |(id, file): (&String, &String)| {
            let file = dir.join(file);
            let value = std::fs::read(&file).context(|| format!("build secret {}", file.display()))?;
            Ok((id.clone(), value))
        };
        let mut request = BuildRequest {
            owner: owner(&image),
            platform,
            args: self.build_args.clone(),
            secrets: self.build_secrets.iter().map(read).collect::<Result<_>>()?,
            ..BuildRequest::default()
        };
        let mut place = PathBuf::new();
        if self.lang.eq_ignore_ascii_case("dockerfile") {
            request.source = handler;
        } else {
            let (template, folder) = template(dir, &self.lang)?;
            request.source = template;
            place = folder.into();
            request.over.push((handler, place.clone()));
        }
        request.over.extend(copy.iter().map(|extra| (dir.join(extra), place.join(extra))));
        Ok(Wanted { name: name.to_owned(), image, request })
    }
}

/// Builds of one image's name share caches.
pub fn owner(image: &Reference) -> String {
    format!("image {}/{}", image.registry(), image.repository())
}

/// A template's directory, and where in it the handler goes.
fn template(dir: &Path, name: &str) -> Result<(PathBuf, String)> {
    // faas-cli writes what follows @ for a version of a template's repository; the directory bears the whole name.
    let plain = |part: &str| !part.is_empty() && part != ".." && !part.contains('/');
    if !plain(name) {
        return Err(Fault::invalid(format!("lang {} is no template's name", name.escape_debug())));
    }
    let found = TEMPLATES.iter().map(|place| dir.join(place).join(name)).find(|place| place.is_dir());
    let found = found.ok_or_else(|| {
        Fault::invalid(format!(
            "template {name} is not in {}/template or templates; get it with: faas-cli template store pull {name}",
            dir.display()
        ))
    })?;
    let yaml = found.join("template.yml");
    let text = std::fs::read_to_string(&yaml).context(|| format!("cannot read {}", yaml.display()))?;
    let template: Template = serde_yaml_ng::from_str(&text)
        .map_err(|e| Fault::invalid(e.to_string()))
        .context(|| yaml.display().to_string())?;
    let folder = template.handler_folder.filter(|folder| plain(folder)).unwrap_or_else(|| "function".into());
    Ok((found, folder))
}

/// `${NAME}`, `${NAME:-default}` and `${NAME-default}`, as faas-cli fills them in; `$${` is a plain `${`.
fn substitute(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let escaped = rest[..at].ends_with('$');
        out.push_str(&rest[..at - usize::from(escaped)]);
        if escaped {
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        let end = rest[at..].find('}').ok_or_else(|| Fault::invalid("a ${ in it has no end"))?;
        let inside = &rest[at + 2..at + end];
        let (name, default, empty_counts) = match (inside.split_once(":-"), inside.split_once('-')) {
            (Some((name, default)), _) => (name, default, false),
            (None, Some((name, default))) => (name, default, true),
            (None, None) => (inside, "", true),
        };
        match env(name).filter(|value| empty_counts || !value.is_empty()) {
            Some(value) => out.push_str(&value),
            None => out.push_str(default),
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether `name` fits a pattern with `*` and `?`.
pub fn fits(pattern: &str, name: &str) -> bool {
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| fits(rest, &name[at..]))
        }
        Some(first) => {
            let mut chars = name.chars();
            chars.next().is_some_and(|c| first == '?' || first == c)
                && fits(&pattern[first.len_utf8()..], chars.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_as_faas_cli_does() {
        let env = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "E" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("x: ${A}", "x: one"),
            ("${B:-two}/${A:-three}", "two/one"),
            ("${E:-full}|${E-full}|${B-d}", "full||d"),
            ("$${A} $A ${B}", "${A} $A "),
        ] {
            assert_eq!(substitute(text, env).unwrap(), expected);
        }
        assert!(substitute("${A", env).is_err());
    }

    #[test]
    fn patterns_are_shell_patterns() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a?c", "abc", true),
            ("a?", "abc", false),
            ("b", "abc", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn template_and_handler_are_found_beside_the_file() {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["templates/go-http", "fn", "shared"] {
            std::fs::create_dir_all(temp.path().join(dir)).unwrap();
        }
        std::fs::write(temp.path().join("templates/go-http/template.yml"), "language: go-http\n").unwrap();
        let file = temp.path().join("stack.yml");
        let write = |function: &str| {
            std::fs::write(&file, format!("configuration:\n  copy: [shared]\nfunctions:\n  f:\n{function}")).unwrap();
        };
        write("    lang: go-http\n    handler: ./fn\n    image: r/f:1\n    build_args: {A: b}\n");
        let wanted = read(&file, &|_| true).unwrap().pop().unwrap();
        assert_eq!(wanted.request.over[0].1, Path::new("function"));
        assert_eq!(wanted.request.over[1].1, Path::new("function/shared"));
        assert_eq!(wanted.request.args["A"], "b");
        assert!(read(&file, &|name| name == "g").unwrap().is_empty());
        for (function, word) in [
            ("    lang: python\n    handler: ./fn\n    image: r/f:1\n", "template python is not in"),
            ("    lang: ../x\n    handler: ./fn\n    image: r/f:1\n", "no template's name"),
            ("    lang: go-http\n    handler: ./none\n    image: r/f:1\n", "no directory"),
            ("    lang: go-http\n    handler: ./fn\n", "are needed"),
        ] {
            write(function);
            let said = read(&file, &|_| true).unwrap_err().to_string();
            assert!(said.contains(word) && said.contains("function f"), "{said}");
        }
    }
}
