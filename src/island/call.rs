//! The call of a request: one Go call expression with literal arguments, and the program that makes it.
//!
//! ```text
//! Call      = [ identifier "." ] identifier "(" [ Argument { "," Argument } [ "," ] ] ")" .
//! Argument  = [ "-" ] ( int_lit | float_lit | imaginary_lit | rune_lit ) | string_lit | "true" | "false" | "nil" .
//! ```
//! The names are those of the Go spec. Spaces and line ends may stand where Go lets them; nothing else is read: no
//! operators, no conversions, no nested calls, no comments. [`Call::program`] writes source from what was read.

use std::fmt;

use super::literal::{self, Number, Wrong, quote, quote_rune};
use crate::fault::Fault;

/// Longest call that is read, in bytes.
pub const CALL_MAX: usize = 64 << 10;

/// Go's keywords (Go spec, "Keywords"), which name nothing.
const KEYWORDS: [&str; 25] = [
    "break",
    "case",
    "chan",
    "const",
    "continue",
    "default",
    "defer",
    "else",
    "fallthrough",
    "for",
    "func",
    "go",
    "goto",
    "if",
    "import",
    "interface",
    "map",
    "package",
    "range",
    "return",
    "select",
    "struct",
    "switch",
    "type",
    "var",
];

/// A call of an exported function with literal arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    package: Option<String>,
    function: String,
    arguments: Vec<Argument>,
}

/// One argument, as a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Argument {
    /// An integer, floating-point or imaginary number, and whether a minus stands before it.
    Number {
        /// A minus stands before it.
        negative: bool,
        /// The number.
        value: Number,
    },
    /// A rune, and whether a minus stands before it.
    Rune {
        /// A minus stands before it.
        negative: bool,
        /// The character.
        value: char,
    },
    /// A string: any bytes.
    Text(Vec<u8>),
    /// `true` or `false`.
    Bool(bool),
    /// `nil`.
    Nil,
}

/// Why text is no call, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// Characters before the fault, plus one.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call: column {}: {}", self.column, self.message)
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        Fault::invalid(error.to_string())
    }
}

impl Call {
    /// Reads a call, and nothing beside it.
    pub fn parse(text: &str) -> Result<Self, CallError> {
        if text.len() > CALL_MAX {
            let message = format!("a call has at most {CALL_MAX} bytes, this one has {}", text.len());
            return Err(CallError { column: 1, message });
        }
        let mut parser = Parser { text, at: 0 };
        parser.call().map_err(|(at, message)| {
            let before = text.char_indices().take_while(|(byte, _)| *byte < at).count();
            CallError { column: before + 1, message }
        })
    }

    /// The function's name.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// The name before the dot, where there is one: what the caller calls the repository's package.
    pub fn package(&self) -> Option<&str> {
        self.package.as_deref()
    }

    /// The arguments.
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments
    }

    /// A program that prints what the call gives, as `fmt.Print` does; plain ASCII but for the two names. The function
    /// is that of the package `import_path`, whatever that package calls itself.
    pub fn program(&self, import_path: &str) -> String {
        let package = self.package.as_deref().unwrap_or("function");
        let output = if package == "fmt" { "output" } else { "fmt" };
        let unqualified = Self { package: None, ..self.clone() };
        format!(
            "// Made by faas-jails for one call; changes are lost.\npackage main\n\n\
             import (\n\t{output} \"fmt\"\n\n\t{package} {}\n)\n\n\
             func main() {{\n\t{output}.Print({package}.{unqualified})\n}}\n",
            quote(import_path.as_bytes())
        )
    }
}

/// The call in its canonical form: calls that mean the same thing for the same reasons look the same.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(package) = &self.package {
            write!(f, "{package}.")?;
        }
        write!(f, "{}(", self.function)?;
        for (index, argument) in self.arguments.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{argument}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minus = |negative: &bool| if *negative { "-" } else { "" };
        match self {
            Self::Number { negative, value } => write!(f, "{}{}", minus(negative), value.as_str()),
            Self::Rune { negative, value } => write!(f, "{}{}", minus(negative), quote_rune(*value)),
            Self::Text(value) => f.write_str(&quote(value)),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Nil => f.write_str("nil"),
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn call(&mut self) -> Result<Call, Wrong> {
        self.skip(&[' ', '\t', '\r', '\n']);
        let first = self.identifier("a call begins with a function's name")?;
        self.blanks();
        let (package, function) = match self.eat('.') {
            true => {
                self.gaps();
                (Some(first), self.identifier("a function's name must follow")?)
            }
            false => (None, first),
        };
        let name = &function.1;
        if !name.starts_with(char::is_uppercase) {
            return Err((function.0, format!("{name} is not exported; Go exports names that begin in upper case")));
        }
        self.blanks();
        if !self.eat('(') {
            return Err(self.unexpected("( must follow the function's name"));
        }
        let arguments = self.arguments()?;
        self.skip(&[' ', '\t', '\r', '\n']);
        match self.rest().is_empty() {
            true => Ok(Call { package: package.map(|(_, name)| name), function: function.1, arguments }),
            false => Err(self.unexpected("a call ends with its )")),
        }
    }

    /// The arguments and the closing parenthesis.
    fn arguments(&mut self) -> Result<Vec<Argument>, Wrong> {
        let mut arguments = Vec::new();
        loop {
            self.gaps();
            if self.eat(')') {
                return Ok(arguments);
            }
            arguments.push(self.argument()?);
            self.blanks();
            if self.eat(')') {
                return Ok(arguments);
            }
            if !self.eat(',') {
                return Err(self.unexpected("a , or ) must follow an argument"));
            }
        }
    }

    fn argument(&mut self) -> Result<Argument, Wrong> {
        let negative = self.eat('-');
        if negative {
            self.gaps();
        }
        match self.rest().chars().next() {
            Some('0'..='9') => self.literal(literal::number).map(|value| Argument::Number { negative, value }),
            Some('.') if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.literal(literal::number).map(|value| Argument::Number { negative, value })
            }
            Some('\'') => self.literal(literal::rune).map(|value| Argument::Rune { negative, value }),
            _ if negative => Err(self.unexpected("a number must follow the minus")),
            Some('"') => self.literal(literal::interpreted).map(Argument::Text),
            Some('`') => self.literal(literal::raw).map(Argument::Text),
            Some(c) if starts_name(c) => self.named(),
            _ => Err(self.unexpected("an argument is a number, a string, a rune, true, false or nil")),
        }
    }

    fn named(&mut self) -> Result<Argument, Wrong> {
        let start = self.at;
        let word = self.word();
        match word.as_str() {
            "true" => Ok(Argument::Bool(true)),
            "false" => Ok(Argument::Bool(false)),
            "nil" => Ok(Argument::Nil),
            _ => Err((
                start,
                format!("{word} is no literal; an argument is a number, a string, a rune, true, false or nil"),
            )),
        }
    }

    fn literal<T>(&mut self, read: impl Fn(&str) -> Result<(T, usize), Wrong>) -> Result<T, Wrong> {
        let (value, length) = read(self.rest()).map_err(|(inner, why)| (self.at + inner, why))?;
        self.at += length;
        Ok(value)
    }

    /// An identifier that names something (Go spec, "Identifiers"), and where it stands.
    fn identifier(&mut self, otherwise: &str) -> Result<(usize, String), Wrong> {
        if !self.rest().starts_with(starts_name) {
            return Err(self.unexpected(otherwise));
        }
        let start = self.at;
        let word = self.word();
        match KEYWORDS.contains(&word.as_str()) || ["_", "true", "false", "nil"].contains(&word.as_str()) {
            true => Err((start, format!("{word} cannot be the name of a package or function"))),
            false => Ok((start, word)),
        }
    }

    fn word(&mut self) -> String {
        let rest = self.rest();
        let end = rest.find(|c: char| !(starts_name(c) || c.is_numeric())).unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        self.at += end;
        word
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn eat(&mut self, c: char) -> bool {
        let there = self.rest().starts_with(c);
        self.at += if there { c.len_utf8() } else { 0 };
        there
    }

    fn skip(&mut self, what: &[char]) {
        self.at = self.text.len() - self.rest().trim_start_matches(what).len();
    }

    /// After a name or a literal, where Go puts a semicolon at a line's end (Go spec, "Semicolons").
    fn blanks(&mut self) {
        self.skip(&[' ', '\t', '\r']);
    }

    /// Where a line may end.
    fn gaps(&mut self) {
        self.skip(&[' ', '\t', '\r', '\n']);
    }

    fn unexpected(&self, needed: &str) -> Wrong {
        let found = match self.rest().chars().next() {
            Some(c) => format!("found {c:?}"),
            None => "the call ends".to_owned(),
        };
        (self.at, format!("{found}; {needed}"))
    }
}

/// A letter or an underscore (Go spec, "Letters and digits").
fn starts_name(c: char) -> bool {
    c == '_' || (c.is_alphabetic() && !c.is_numeric())
}

#[cfg(test)]
mod tests;
