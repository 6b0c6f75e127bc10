//! What a program file is for, by its ELF header (elf(5)): 64 bits, little-endian, as on amd64 and arm64.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::fault::{Context, Fault, Result};

/// Where linkers put what is read here.
const HEAD: u64 = 64 << 10;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
const EM_RISCV: u16 = 243;
const PT_INTERP: u32 = 3;
const OSABI_FREEBSD: u8 = 9;
/// FreeBSD's loader; its kernel, too, takes what names it for its own (imgact_elf.c).
const LOADER_FREEBSD: &str = "/libexec/ld-elf.so.1";

/// What an ELF header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// `os/architecture` in Go's words. Linux's programs do not name their system, so what names none is Linux's.
    pub platform: String,
    /// The loader that it needs, if it is not statically linked.
    pub interpreter: Option<String>,
}

impl Elf {
    /// Reads a program.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes).ok_or_else(|| Fault::invalid("it is no 64-bit little-endian ELF program"))
    }

    /// Reads the program in a file, of which the first bytes are enough as a rule.
    pub fn of(path: &Path) -> Result<Self> {
        let what = || format!("cannot read {}", path.display());
        let mut bytes = Vec::new();
        let mut file = File::open(path).context(what)?;
        (&mut file).take(HEAD).read_to_end(&mut bytes).context(what)?;
        if let Some(elf) = Self::parse(&bytes) {
            return Ok(elf);
        }
        file.read_to_end(&mut bytes).context(what)?;
        Self::read(&bytes).context(|| path.display().to_string())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok();
        let architecture = match half(18)? {
            EM_X86_64 => "amd64",
            EM_AARCH64 => "arm64",
            EM_RISCV => "riscv64",
            _ => return None,
        };
        let (table, size, count) = (long(32)?, usize::from(half(54)?), usize::from(half(56)?));
        let mut interpreter = None;
        for number in 0..count {
            let at = table.checked_add(number.checked_mul(size)?)?;
            if word(at)? == PT_INTERP {
                let (offset, length) = (long(at + 8)?, long(at + 32)?);
                let name = bytes.get(offset..offset.checked_add(length)?)?;
                interpreter = Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned());
            }
        }
        let freebsd = *bytes.get(7)? == OSABI_FREEBSD || interpreter.as_deref() == Some(LOADER_FREEBSD);
        let os = if freebsd { "freebsd" } else { "linux" };
        Some(Self { platform: format!("{os}/{architecture}"), interpreter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_a_program_of_this_platform() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = Elf::read(&own).unwrap();
        assert!(elf.platform.starts_with(std::env::consts::OS), "{elf:?}");
        assert!(elf.interpreter.as_ref().is_some_and(|name| name.starts_with('/')));
        for length in [0, 5, 20, 60, 100] {
            // Cut short anywhere, it is refused or has no loader; it is never read beyond its end.
            let _ = Elf::read(&own[..length]);
        }
        assert!(Elf::read(b"#!/bin/sh").is_err());
        assert_eq!(Elf::of(&std::env::current_exe().unwrap()).unwrap(), elf);
        // One whose loader is named further behind than programs have it.
        let temp = tempfile::tempdir().unwrap();
        let mut far = own[..64].to_vec();
        far.resize(200_000, 0);
        far.extend_from_slice(&own[..4096]);
        let table = u64::from_le_bytes(own[32..40].try_into().unwrap()) + 200_000;
        far[32..40].copy_from_slice(&table.to_le_bytes());
        std::fs::write(temp.path().join("far"), &far).unwrap();
        assert!(Elf::of(&temp.path().join("far")).is_ok());
    }
}
