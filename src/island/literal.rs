//! Go's literals, read and written: numbers, runes and strings (Go spec, "Lexical elements").
//!
//! What is read is kept as a value and written anew in one canonical, plain ASCII form, so that nothing of the
//! text that a client sent ever reaches a compiler.

use std::fmt::Write;

/// A literal's number: an integer, floating-point or imaginary literal in lower case, without underscores, octals with
/// `0o`. It holds nothing but digits, letters that the grammar has, a dot and an exponent's sign.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Number(String);

impl Number {
    /// The number in Go's syntax.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why text is no literal, and where: bytes from its beginning.
pub(super) type Wrong = (usize, String);

fn wrong<T>(at: usize, message: impl Into<String>) -> Result<T, Wrong> {
    Err((at, message.into()))
}

/// Reads the number that `text` begins with, and how many bytes it has (Go spec, "Integer literals" to
/// "Imaginary literals"). `text` begins with a digit, or with a dot and a digit.
pub(super) fn number(text: &str) -> Result<(Number, usize), Wrong> {
    let bytes = text.as_bytes();
    let (base, prefix) = match (bytes[0], bytes.get(1).map(u8::to_ascii_lowercase)) {
        (b'0', Some(b'x')) => (16, "0x"),
        (b'0', Some(b'o')) => (8, "0o"),
        (b'0', Some(b'b')) => (2, "0b"),
        _ => (10, ""),
    };
    let mut at = prefix.len();
    let whole = digits(bytes, &mut at, base, !prefix.is_empty())?;
    let mut canonical = format!("{prefix}{whole}");
    let mut fractional = false;
    let mut mantissa = whole.len();
    if bytes.get(at) == Some(&b'.') && matches!(base, 10 | 16) {
        fractional = true;
        at += 1;
        let fraction = digits(bytes, &mut at, base, false)?;
        mantissa += fraction.len();
        write!(canonical, ".{fraction}").expect("writing to memory");
    }
    if mantissa == 0 {
        return wrong(at, format!("{prefix} needs a digit"));
    }
    let mark = if base == 16 { b'p' } else { b'e' };
    let has_exponent = matches!(base, 10 | 16) && bytes.get(at).is_some_and(|byte| byte.to_ascii_lowercase() == mark);
    if has_exponent {
        at += 1;
        canonical.push(char::from(mark));
        if let Some(sign @ (b'+' | b'-')) = bytes.get(at) {
            canonical.push(char::from(*sign));
            at += 1;
        }
        let exponent = digits(bytes, &mut at, 10, false)?;
        if exponent.is_empty() {
            return wrong(at, "an exponent needs a digit");
        }
        canonical.push_str(&exponent);
    } else if fractional && base == 16 {
        return wrong(at, "a hexadecimal number with a fraction needs an exponent, such as p0");
    }
    let imaginary = bytes.get(at) == Some(&b'i');
    if imaginary {
        at += 1;
    } else if prefix.is_empty() && !fractional && !has_exponent && whole.len() > 1 && whole.starts_with('0') {
        // An octal in the old form; an imaginary one is decimal all the same.
        if let Some(digit) = whole.find(['8', '9']) {
            return wrong(0, format!("{} is no octal digit", &whole[digit..=digit]));
        }
        canonical = format!("0o{}", &whole[1..]);
    }
    if imaginary {
        canonical.push('i');
    }
    match text[at..].chars().next() {
        Some(c) if c == '_' || c == '.' || c.is_alphanumeric() => wrong(at, format!("{c:?} cannot be in a number")),
        _ => Ok((Number(canonical), at)),
    }
}

/// Digits from `at` on, without the underscores between them; `joined`: one may come first, after a prefix.
fn digits(bytes: &[u8], at: &mut usize, base: u32, joined: bool) -> Result<String, Wrong> {
    let mut found = String::new();
    let mut may_join = joined;
    while let Some(&byte) = bytes.get(*at) {
        match char::from(byte) {
            '_' if may_join => may_join = false,
            '_' => return wrong(*at, "'_' must separate digits"),
            digit if digit.is_digit(base) => {
                found.push(digit.to_ascii_lowercase());
                may_join = true;
            }
            _ => break,
        }
        *at += 1;
    }
    if *at > 0 && bytes[*at - 1] == b'_' {
        return wrong(*at, "'_' must separate digits");
    }
    Ok(found)
}

/// Reads the rune literal that `text` begins with, and how many bytes it has (Go spec, "Rune literals").
pub(super) fn rune(text: &str) -> Result<(char, usize), Wrong> {
    let inside = &text[1..];
    let (value, length) = match inside.chars().next() {
        None | Some('\n') => return wrong(0, "this rune has no end"),
        Some('\'') => return wrong(0, "a rune needs a character"),
        Some('\\') => match escape(inside, '\'').map_err(|(at, why)| (at + 1, why))? {
            (Escaped::Char(value), length) => (value, length),
            (Escaped::Byte(value), length) => (char::from(value), length),
        },
        Some(plain) => (readable(plain, 1)?, plain.len_utf8()),
    };
    match inside[length..].starts_with('\'') {
        true => Ok((value, length + 2)),
        false => wrong(0, "a rune is one character and ends with '"),
    }
}

/// Reads the interpreted string that `text` begins with, and how many bytes it has (Go spec, "String literals").
pub(super) fn interpreted(text: &str) -> Result<(Vec<u8>, usize), Wrong> {
    let mut value = Vec::new();
    let mut at = 1;
    loop {
        match text[at..].chars().next() {
            None | Some('\n') => return wrong(0, "this string has no end"),
            Some('"') => return Ok((value, at + 1)),
            Some('\\') => {
                let (escaped, length) = escape(&text[at..], '"').map_err(|(inner, why)| (at + inner, why))?;
                match escaped {
                    Escaped::Char(c) => value.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    Escaped::Byte(byte) => value.push(byte),
                }
                at += length;
            }
            Some(plain) => {
                value.extend(readable(plain, at)?.encode_utf8(&mut [0; 4]).as_bytes());
                at += plain.len_utf8();
            }
        }
    }
}

/// Reads the raw string that `text` begins with, and how many bytes it has. Carriage returns are no part of it.
pub(super) fn raw(text: &str) -> Result<(Vec<u8>, usize), Wrong> {
    let Some(length) = text[1..].find('`') else { return wrong(0, "this string has no end") };
    let mut value = Vec::with_capacity(length);
    for (at, c) in text[1..=length].char_indices() {
        if c != '\r' {
            value.extend(readable(c, at + 1)?.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Ok((value, length + 2))
}

/// A character that Go source may hold (Go spec, "Source code representation").
fn readable(c: char, at: usize) -> Result<char, Wrong> {
    match c {
        '\0' => wrong(at, "Go source cannot hold a NUL"),
        '\u{feff}' => wrong(at, "Go source cannot hold a byte order mark"),
        c => Ok(c),
    }
}

enum Escaped {
    Char(char),
    Byte(u8),
}

/// Reads the escape that `text` begins with. `quote` is the one that may be escaped.
fn escape(text: &str, quote: char) -> Result<(Escaped, usize), Wrong> {
    let plain = |c: char| Ok((Escaped::Char(c), 2));
    let code = |start: usize, count: usize, base: u32| {
        let digits = text.get(start..start + count).filter(|d| d.chars().all(|c| c.is_digit(base)));
        let value = digits.and_then(|digits| u32::from_str_radix(digits, base).ok());
        value.ok_or_else(|| (0, format!("this escape needs {count} digits")))
    };
    match text[1..].chars().next() {
        Some('a') => plain('\u{7}'),
        Some('b') => plain('\u{8}'),
        Some('f') => plain('\u{c}'),
        Some('n') => plain('\n'),
        Some('r') => plain('\r'),
        Some('t') => plain('\t'),
        Some('v') => plain('\u{b}'),
        Some('\\') => plain('\\'),
        Some(c) if c == quote => plain(c),
        Some('x') => Ok((Escaped::Byte(code(2, 2, 16)? as u8), 4)),
        Some('0'..='7') => match u8::try_from(code(1, 3, 8)?) {
            Ok(byte) => Ok((Escaped::Byte(byte), 4)),
            Err(_) => wrong(0, "an octal escape ends at \\377"),
        },
        Some(kind @ ('u' | 'U')) => {
            let count = if kind == 'u' { 4 } else { 8 };
            match char::from_u32(code(2, count, 16)?) {
                Some(c) => Ok((Escaped::Char(c), 2 + count)),
                None => wrong(0, "this escape names no Unicode character"),
            }
        }
        Some(other) => wrong(0, format!("there is no escape \\{}", other.escape_debug())),
        None => wrong(0, "this literal has no end"),
    }
}

/// A string literal with this value, in ASCII.
pub fn quote(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for chunk in value.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_escaped(&mut text, c, '"'));
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to memory");
        }
    }
    text.push('"');
    text
}

/// A rune literal with this value, in ASCII.
pub fn quote_rune(value: char) -> String {
    let mut text = String::from("'");
    push_escaped(&mut text, value, '\'');
    text.push('\'');
    text
}

fn push_escaped(text: &mut String, c: char, quote: char) {
    match c {
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        c if c == quote || c == '\\' => text.extend(['\\', c]),
        ' '..='~' => text.push(c),
        c if u32::from(c) <= 0xffff => write!(text, "\\u{:04x}", u32::from(c)).expect("writing to memory"),
        c => write!(text, "\\U{:08x}", u32::from(c)).expect("writing to memory"),
    }
}
