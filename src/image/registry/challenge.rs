//! `WWW-Authenticate` (RFC 9110, 11.6.1): what a registry wants to see.

/// One of the two schemes that registries use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A user name and password with every request.
    Basic,
    /// A token from a token server (distribution, "Token Authentication").
    Bearer {
        /// The token server's URL.
        realm: String,
        /// The name of the registry there.
        service: Option<String>,
    },
}

impl Challenge {
    /// Reads the header's value; a token is preferred where both are offered.
    pub fn parse(header: &str) -> Option<Self> {
        let mut found = None;
        let mut rest = header.trim();
        while !rest.is_empty() {
            let (scheme, parameters, after) = one(rest)?;
            let value =
                |name: &str| parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some(Self::Bearer { realm: value("realm")?, service: value("service") });
            }
            if scheme.eq_ignore_ascii_case("basic") {
                found = Some(Self::Basic);
            }
            rest = after;
        }
        found
    }
}

type One<'a> = (&'a str, Vec<(String, String)>, &'a str);

/// A scheme with its parameters, and what follows: the next scheme.
fn one(text: &str) -> Option<One<'_>> {
    let end = text.find(' ').unwrap_or(text.len());
    let (scheme, mut rest) = text.split_at(end);
    let mut parameters = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        let Some(equals) = rest.find('=') else { return Some((scheme, parameters, "")) };
        let name = &rest[..equals];
        if name.contains([' ', ',']) {
            return Some((scheme, parameters, rest));
        }
        let (value, after) = value(&rest[equals + 1..])?;
        parameters.push((name.to_owned(), value));
        rest = after;
    }
}

/// A token or a quoted string.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = Challenge::Bearer { realm: "https://a.example/token".into(), service: Some("r, \"x\"".into()) };
        for text in [
            r#"Bearer realm="https://a.example/token",service="r, \"x\"",scope="repository:a/b:pull""#,
            r#"Basic realm="r", bearer service="r, \"x\"", realm=https://a.example/token"#,
        ] {
            assert_eq!(Challenge::parse(text), Some(bearer.clone()), "{text}");
        }
        assert_eq!(Challenge::parse("Basic"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse(r#"Basic realm="x""#), Some(Challenge::Basic));
        for text in ["", "Negotiate", r#"Bearer realm="x"#, "Bearer service=x"] {
            assert_eq!(Challenge::parse(text), None, "{text}");
        }
    }
}
