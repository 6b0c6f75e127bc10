//! Git's smart HTTP protocol, version 2, as far as one commit needs it (git's Documentation/gitprotocol-v2 and -http).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::build::remote::Remote;
use crate::fault::{Fault, Kind, Result};

/// Most bytes of a list of references.
const REFS: u64 = 16 << 20;

/// One line of the protocol.
#[derive(Debug, PartialEq, Eq)]
enum Packet<'a> {
    Data(&'a [u8]),
    Flush,
    Delimiter,
}

/// What the version `name` is: a tag, then a branch; the default branch when it is empty, or `latest` and no such name.
pub fn resolve(remote: &Remote, url: &str, name: &str) -> Result<String> {
    let headers = greet(remote, url)?;
    let mut body = Vec::new();
    for line in ["command=ls-refs", "object-format=sha1"] {
        data(&mut body, line);
    }
    body.extend_from_slice(b"0001");
    for line in [
        "peel".to_owned(),
        "ref-prefix HEAD".into(),
        format!("ref-prefix refs/tags/{name}"),
        format!("ref-prefix refs/heads/{name}"),
    ] {
        data(&mut body, &line);
    }
    body.extend_from_slice(b"0000");
    let answer = remote.answer(&format!("{url}/git-upload-pack"), &headers, Some(&body), REFS)?;
    let lines = packets(&answer)?;
    let find = |wanted: &str| {
        lines.iter().find_map(|packet| {
            let Packet::Data(line) = packet else { return None };
            let line = std::str::from_utf8(line).ok()?.trim_end();
            let mut words = line.split(' ');
            let (id, reference) = (words.next()?, words.next()?);
            // An annotated tag is an object of its own; what it points to is said beside it.
            let peeled = words.find_map(|word| word.strip_prefix("peeled:"));
            (reference == wanted && is_id(id)).then(|| peeled.filter(|id| is_id(id)).unwrap_or(id).to_owned())
        })
    };
    let named =
        (!name.is_empty()).then(|| find(&format!("refs/tags/{name}")).or_else(|| find(&format!("refs/heads/{name}"))));
    match named.flatten() {
        Some(id) => Ok(id),
        None if name.is_empty() || name == "latest" => {
            find("HEAD").ok_or_else(|| Fault::invalid("it is empty: it has no default branch"))
        }
        None => Err(Fault::invalid(format!("it has no tag or branch {name}; a commit must be written in full"))),
    }
}

/// The pack with one commit, without its history.
pub fn fetch(remote: &Remote, url: &str, commit: &str, most: u64) -> Result<Vec<u8>> {
    let headers = greet(remote, url)?;
    let mut body = Vec::new();
    for line in ["command=fetch", "object-format=sha1"] {
        data(&mut body, line);
    }
    body.extend_from_slice(b"0001");
    for line in ["ofs-delta", "no-progress", "deepen 1", &format!("want {commit}"), "done"] {
        data(&mut body, line);
    }
    body.extend_from_slice(b"0000");
    // Side bands and lengths around the pack take less than a hundredth.
    let room = most.saturating_add(most / 64).saturating_add(1 << 16);
    let answer = remote.answer(&format!("{url}/git-upload-pack"), &headers, Some(&body), room)?;
    let mut pack = Vec::with_capacity(answer.len());
    let mut inside = false;
    for packet in packets(&answer)? {
        match packet {
            Packet::Data(b"packfile\n") => inside = true,
            Packet::Data([1, bytes @ ..]) if inside => pack.extend_from_slice(bytes),
            Packet::Data([3, message @ ..]) if inside => return Err(refused(message)),
            _ => {}
        }
    }
    if pack.is_empty() {
        return Err(Fault::invalid(format!("it sent nothing for commit {commit}")));
    }
    Ok(pack)
}

/// Asks whether the server speaks version 2; gives the headers for what follows.
fn greet(remote: &Remote, url: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("git-protocol"), HeaderValue::from_static("version=2"));
    let answer = remote.answer(&format!("{url}/info/refs?service=git-upload-pack"), &headers, None, REFS)?;
    let lines = packets(&answer).map_err(|_| Fault::not_found("there is no Git repository"))?;
    let says = |text: &str| {
        lines.iter().any(|line| matches!(line, Packet::Data(data) if data.trim_ascii_end() == text.as_bytes()))
    };
    if !says("version 2") {
        return Err(Fault::new(
            Kind::Unsupported,
            "its server does not speak version 2 of Git's protocol (git 2.18 or later)",
        ));
    }
    if says("object-format=sha256") {
        return Err(Fault::new(Kind::Unsupported, "it names its objects by SHA-256, which is not supported"));
    }
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-git-upload-pack-request"));
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/x-git-upload-pack-result"));
    Ok(headers)
}

fn data(body: &mut Vec<u8>, line: &str) {
    body.extend_from_slice(format!("{:04x}{line}\n", line.len() + 5).as_bytes());
}

/// Splits an answer into its lines (gitprotocol-common, "pkt-line Format").
fn packets(mut bytes: &[u8]) -> Result<Vec<Packet<'_>>> {
    let broken = || Fault::invalid("its server's answer makes no sense");
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.get(..4).and_then(|length| std::str::from_utf8(length).ok()).ok_or_else(broken)?;
        let length = usize::from_str_radix(length, 16).map_err(|_| broken())?;
        let (packet, taken) = match length {
            0 => (Packet::Flush, 4),
            1 | 2 => (Packet::Delimiter, 4),
            3 => return Err(broken()),
            _ => (Packet::Data(bytes.get(4..length).ok_or_else(broken)?), length),
        };
        if let Packet::Data(line) = &packet
            && let Some(message) = line.strip_prefix(b"ERR ")
        {
            return Err(refused(message));
        }
        found.push(packet);
        bytes = &bytes[taken..];
    }
    Ok(found)
}

fn refused(message: &[u8]) -> Fault {
    let said: String = String::from_utf8_lossy(message).trim().chars().filter(|c| !c.is_control()).take(200).collect();
    Fault::invalid(format!("its server says: {said}"))
}

fn is_id(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_at_their_lengths() {
        let mut body = Vec::new();
        data(&mut body, "peel");
        body.extend_from_slice(b"00010000");
        assert_eq!(packets(&body).unwrap(), [Packet::Data(b"peel\n"), Packet::Delimiter, Packet::Flush]);
        for bad in [&b"zzzz"[..], b"0003", b"00ff", b"00", b"<html>"] {
            assert!(packets(bad).is_err(), "{bad:?}");
        }
        assert!(packets(b"0010ERR no such\x07").unwrap_err().to_string().ends_with("says: no such"));
    }
}
