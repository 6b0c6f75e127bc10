//! An image's `User` in numbers, by the rules that Docker and containerd follow (runc, `libcontainer/user`).

use crate::fault::{Fault, Result};
use crate::sandbox::User;

use super::unpack::Seen;

/// Ids above are refused: as a signed number they are negative, and have become root elsewhere (CVE-2024-40635).
const ID_MAX: u32 = i32::MAX as u32;

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Resolves `spec` (`user`, `user:group`, names or numbers; empty is root) against the image's account files.
pub fn resolve(spec: &str, passwd: &Seen, group: &Seen) -> Result<User> {
    let (user, wanted_group) = spec.split_once(':').map_or((spec, ""), |(user, group)| (user, group));
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user)?;
    let account = accounts(text(passwd)).find(|a| Some(a.uid) == number || (number.is_none() && a.name == user));
    let (uid, mut gid, name) = match (&account, number) {
        (Some(account), _) => (account.uid, account.gid, Some(account.name)),
        (None, Some(uid)) => (uid, 0, None),
        (None, None) => return Err(unknown("user", user, "/etc/passwd", passwd)),
    };
    let mut extra = Vec::new();
    if wanted_group.is_empty() {
        let member = |g: &Group<'_>| name.is_some_and(|name| g.members.split(',').any(|m| m == name));
        extra = groups(text(group)).filter(member).map(|g| g.gid).collect();
    } else {
        let number = id(wanted_group)?;
        let named = groups(text(group)).find(|g| number.is_none() && g.name == wanted_group).map(|g| g.gid);
        gid = number.or(named).ok_or_else(|| unknown("group", wanted_group, "/etc/group", group))?;
    }
    if uid > ID_MAX || gid > ID_MAX {
        return Err(Fault::invalid(format!("user {spec} is {uid}:{gid}; ids above {ID_MAX} are refused")));
    }
    extra.retain(|gid| *gid <= ID_MAX);
    Ok(User { uid, gid, groups: extra })
}

/// A number, if `word` is one; a number that is too large is an error rather than a name.
fn id(word: &str) -> Result<Option<u32>> {
    if word.is_empty() || !word.bytes().all(|b| b.is_ascii_digit()) {
        return match word.strip_prefix('-') {
            Some(rest) if rest.bytes().all(|b| b.is_ascii_digit()) => Err(too_large(word)),
            _ => Ok(None),
        };
    }
    word.parse().ok().filter(|id| *id <= ID_MAX).map(Some).ok_or_else(|| too_large(word))
}

fn too_large(word: &str) -> Fault {
    Fault::invalid(format!("id {word} of the image's user is refused: it must be between 0 and {ID_MAX}"))
}

fn unknown(what: &str, name: &str, file: &str, seen: &Seen) -> Fault {
    let why = match seen {
        Seen::Text(_) => format!("{file} of the image has no such name"),
        Seen::Unreadable => format!("{file} of the image is a link or too large to be read"),
        Seen::Untouched | Seen::Removed => format!("the image has no {file}"),
    };
    Fault::invalid(format!("{what} {} of the image is unknown: {why}; use a number", name.escape_debug()))
}

fn text(seen: &Seen) -> &str {
    match seen {
        Seen::Text(text) => text,
        _ => "",
    }
}

/// passwd(5): `name:password:uid:gid:…`. Lines that are none are left out.
fn accounts(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some(Account { name, uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    })
}

/// group(5): `name:password:gid:member,member`.
fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next().unwrap_or(""));
        Some(Group { name, gid: gid.parse().ok()?, members })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:100:101:App:/home/app:/bin/sh\nbig:x:4000000000:1::/:\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,app\napp:x:101:\nwww:x:33:app\n";

    fn user(spec: &str) -> Result<User> {
        resolve(spec, &Seen::Text(PASSWD.to_owned()), &Seen::Text(GROUP.to_owned()))
    }

    #[test]
    fn users_are_those_that_docker_takes() {
        for (spec, uid, gid, groups) in [
            ("", 0, 0, &[0, 10][..]),
            ("app", 100, 101, &[10, 33]),
            ("100", 100, 101, &[10, 33]),
            ("app:www", 100, 33, &[]),
            ("app:7", 100, 7, &[]),
            ("1234", 1234, 0, &[]),
            ("1234:5678", 1234, 5678, &[]),
            (":www", 0, 33, &[]),
        ] {
            assert_eq!(user(spec).unwrap(), User { uid, gid, groups: groups.to_vec() }, "{spec:?}");
        }
    }

    #[test]
    fn unknown_names_and_ids_beyond_2_to_the_31_are_refused() {
        for spec in [
            "nobody",
            "app:none",
            "2147483648",
            "4294967296",
            "18446744073709551616",
            "-1",
            "0:-1",
            "0:2147483648",
            "big",
        ] {
            assert!(user(spec).is_err(), "{spec:?} was accepted");
        }
        assert_eq!(user("2147483647").unwrap().uid, 2147483647);
        let fault = resolve("app", &Seen::Untouched, &Seen::Untouched).unwrap_err().to_string();
        assert_eq!(fault, "user app of the image is unknown: the image has no /etc/passwd; use a number");
    }
}
