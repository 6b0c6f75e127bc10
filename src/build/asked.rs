//! Builds that are asked for from outside: faas-cli's remote builds, and images that name a repository.

use std::path::Path;

use super::parcel::{Key, Parcel};
use super::source::Version;
use super::stack::owner;
use super::tree::{self, Copier};
use super::version::directive;
use super::workspace::Workspace;
use super::{BuildRequest, Builder, Progress, recipe};
use crate::fault::{Context, Fault, Kind, Result};
use crate::image::{Image, Platform, Reference, RepositorySource};

/// The program around a handler: the template's own.
const PROGRAM: &str = include_str!("../../templates/go-http/main.go");
/// What it imports the handler as.
const IMPORT: &str = "\"handler/function\"";
/// Where it is put in a copy of a repository.
const WRAPPER: &str = "faas-jails-handler";

impl Builder {
    /// The secret that signs remote builds.
    pub fn payload_secret(&self) -> Result<Vec<u8>> {
        let path = self.settings.payload_secret.as_ref().ok_or_else(|| {
            Fault::new(Kind::Denied, "remote builds are off: name a file with their secret in builder.payload_secret")
        })?;
        let bytes = std::fs::read(path).context(|| format!("cannot read {}", path.display()))?;
        match bytes.trim_ascii() {
            [] => Err(Fault::new(Kind::Unsupported, format!("{} is empty", path.display()))),
            secret => Ok(secret.to_vec()),
        }
    }

    /// The key that build secrets are sealed for.
    pub fn key(&self) -> Result<Key> {
        Key::open(&self.dir.join("key"))
    }

    /// Builds what faas-cli sent, and pushes it if that is asked for and allowed; gives the log.
    pub fn build_parcel(&self, parcel: &Parcel, body: &[u8], progress: &dyn Progress) -> Result<String> {
        let workspace = Workspace::make(&self.dir.join("work"))?;
        let source = workspace.path("context");
        Parcel::unpack(body, &mut Copier::new(&source, self.settings.source)?)?;
        let secrets = parcel.sealed.as_ref().map(|sealed| self.key()?.open_secrets(sealed)).transpose()?;
        let request = BuildRequest {
            source,
            owner: owner(&parcel.image),
            platform: platform(&parcel.platforms)?,
            args: parcel.args.clone(),
            secrets: secrets.unwrap_or_default(),
            ..BuildRequest::default()
        };
        let push = !parcel.skip_push && self.settings.push;
        let built = self.build_and(&request, &parcel.image, push, progress)?;
        if !parcel.skip_push && !push {
            progress.step(&format!("{} is kept here and not pushed (builder.push)", parcel.image));
        }
        Ok(built.log)
    }

    /// Makes the image that `reference` stands for: the program in a repository, or a program around a handler in it.
    pub fn build_repository(
        &self,
        reference: &Reference,
        source: &RepositorySource,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let repository = self.repository(&source.repository)?;
        let version: Version = source.version.parse()?;
        let commit = self.resolve(&repository, &version)?;
        progress.step(&format!("{repository} {} is commit {commit}", source.version));
        let checkout = self.checkout(&repository, &commit)?;
        let mut request = BuildRequest {
            source: checkout.path().to_owned(),
            package: source.package.clone(),
            owner: format!("repository {repository}"),
            platform: platform.cloned(),
            ..BuildRequest::default()
        };
        if !is_program(checkout.path(), &source.package)? {
            wrap(checkout.path(), &mut request)?;
        }
        Ok(self.build(&request, reference, progress)?.image)
    }
}

/// The one platform of those that were asked for. faas-cli always asks for linux/amd64, unless it is told otherwise; on
/// another system that is taken for not having been asked.
fn platform(asked: &[Platform]) -> Result<Option<Platform>> {
    let host = crate::platform::image_target().first();
    match asked {
        [] => Ok(None),
        [one] if one.to_string() == "linux/amd64" && host.os != "linux" => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => {
            Err(Fault::new(Kind::Unsupported, "an image here is for one platform; ask for one at a time (--platforms)"))
        }
    }
}

/// Whether the package there is a program. What has no Go file is left to the compiler to complain of.
fn is_program(top: &Path, package: &str) -> Result<bool> {
    let package = package.trim_start_matches("./").trim_end_matches('/');
    let dir = if package.is_empty() || package == "." { top.to_owned() } else { top.join(package) };
    let Ok(entries) = std::fs::read_dir(&dir) else { return Ok(true) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".go") || name.ends_with("_test.go") {
            continue;
        }
        let at = if dir == top { name } else { format!("{package}/{name}") };
        if let Some(name) = tree::read_text(top, &at)?.as_deref().and_then(|text| directive(text, "package")) {
            return Ok(name == "main");
        }
    }
    Ok(true)
}

/// Puts the template's program around the handler package that a request names.
fn wrap(top: &Path, request: &mut BuildRequest) -> Result<()> {
    let module = recipe::module_of(top, &request.package)?;
    let go_mod = if module.is_empty() { "go.mod".to_owned() } else { format!("{module}/go.mod") };
    let text = tree::read_text(top, &go_mod)?.unwrap_or_default();
    let path = recipe::module_path(&text).ok_or_else(|| Fault::invalid(format!("{go_mod} has no module line")))?;
    let package = recipe::relative(&request.package, &module);
    let import = match package.strip_prefix("./") {
        Some(inside) => format!("{path}/{inside}"),
        None => path.to_owned(),
    };
    if !import.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/+".contains(&b)) {
        return Err(Fault::invalid(format!("{} cannot be imported", import.escape_debug())));
    }
    let wrapper = if module.is_empty() { WRAPPER.to_owned() } else { format!("{module}/{WRAPPER}") };
    let program = PROGRAM.replace(IMPORT, &format!("\"{import}\""));
    request.files.insert(Path::new(&wrapper).join("main.go"), program.into_bytes());
    request.package = wrapper;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_gets_the_template_s_program_and_a_program_stays() {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("go.mod", "module example.com/r\n"),
            ("main.go", "// a comment\npackage main\n"),
            ("lib/greet/greet.go", "package greet\n"),
            ("lib/greet/x_test.go", "package main\n"),
        ] {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert!(is_program(temp.path(), "").unwrap());
        assert!(!is_program(temp.path(), "lib/greet").unwrap());
        let mut request = BuildRequest { package: "./lib/greet".into(), ..BuildRequest::default() };
        wrap(temp.path(), &mut request).unwrap();
        assert_eq!(request.package, WRAPPER);
        let program = String::from_utf8(request.files.into_values().next().unwrap()).unwrap();
        assert!(program.contains("function \"example.com/r/lib/greet\"\n") && !program.contains("handler/function"));
    }
}
