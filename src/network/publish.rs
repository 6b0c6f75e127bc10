//! Published ports: `8443:8080/tcp, 5353:53/udp`, ports of the host that lead to a function's replicas.

use std::fmt;
use std::str::FromStr;

use crate::fault::{Fault, Result};

/// Transport protocols that can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One published port, written `HOST:INSIDE[/PROTOCOL]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Port of the host.
    pub host: u16,
    /// Port of the replicas.
    pub inside: u16,
    /// Of which protocol.
    pub protocol: Protocol,
}

impl Port {
    /// Reads a list of ports, separated by commas. No port of the host may be in it twice.
    pub fn list(text: &str) -> Result<Vec<Self>> {
        let ports: Vec<Self> = text.split(',').map(|one| one.trim().parse()).collect::<Result<_>>()?;
        for (index, port) in ports.iter().enumerate() {
            if ports[..index].iter().any(|other| other.collides(port)) {
                return Err(Fault::invalid(format!(
                    "port {}/{} of the host is in ({text}) twice",
                    port.host, port.protocol
                )));
            }
        }
        Ok(ports)
    }

    /// Whether both are the same port of the host.
    pub fn collides(&self, other: &Self) -> bool {
        (self.host, self.protocol) == (other.host, other.protocol)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.inside, self.protocol)
    }
}

impl FromStr for Port {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Fault::invalid(format!(
                "port ({}) is invalid: port of the host, port of the function and protocol, as in 8443:8080/tcp",
                text.escape_debug()
            ))
        };
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(bad()),
        };
        let (host, inside) = ports.split_once(':').ok_or_else(bad)?;
        // Digits only: parse would take a sign.
        let number = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|n| digits && *n > 0).ok_or_else(bad)
        };
        Ok(Self { host: number(host)?, inside: number(inside)?, protocol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        let all = Port::list("8443:8080/tcp, 5353:53/udp,80:8080").unwrap();
        let shown: Vec<String> = all.iter().map(Port::to_string).collect();
        assert_eq!(shown, ["8443:8080/tcp", "5353:53/udp", "80:8080/tcp"]);
        assert!(Port::list("53:53/udp,53:53/tcp").is_ok(), "one number, two protocols");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "80", "80:", ":80", "0:80", "80:0", "80:65536", "80:80/sctp", "80:80/", "+80:80", "80:80,", "a:b"]
        {
            assert!(Port::list(text).is_err(), "{text:?}");
        }
        assert!(Port::list("80:1,80:2").unwrap_err().to_string().contains("80/tcp"));
    }
}
