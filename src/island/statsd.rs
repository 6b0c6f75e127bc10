//! Sky Island's metrics by StatsD: the names and types of its dashboards, one datagram each.
//!
//! A metric that cannot be sent is forgotten: calls never wait for whoever counts them.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::fault::{Context, Result};

/// Sends metrics to one address, or to nobody.
#[derive(Debug, Default)]
pub struct Statsd {
    socket: Option<UdpSocket>,
}

impl Statsd {
    /// Sends to `address` from now on; with `None`, nothing is sent.
    pub fn new(address: Option<SocketAddr>) -> Result<Self> {
        let Some(address) = address else { return Ok(Self::default()) };
        let what = || format!("cannot send StatsD metrics to {address}");
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).context(what)?;
        socket.set_nonblocking(true).context(what)?;
        socket.connect(address).context(what)?;
        Ok(Self { socket: Some(socket) })
    }

    /// How long something took, in milliseconds.
    pub fn timing(&self, name: &str, took: Duration) {
        self.send(name, took.as_millis(), "ms");
    }

    /// Something has happened once: a histogram with the value 1, as Sky Island counts.
    pub fn event(&self, name: &str) {
        self.send(name, 1, "h");
    }

    fn send(&self, name: &str, value: u128, kind: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(format!("{}:{value}|{kind}", clean(name)).as_bytes());
        }
    }
}

/// A name without the characters that end one in StatsD's format.
fn clean(name: &str) -> String {
    name.chars().map(|c| if matches!(c, ':' | '|' | '@' | '\n') { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_arrive_where_they_are_sent_to_in_the_format_of_sky_island_s_client() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let statsd = Statsd::new(Some(server.local_addr().unwrap())).unwrap();
        statsd.timing("jail.create_jail_time", Duration::from_micros(12_700));
        statsd.event("repo.example.test:8080/a|b");
        let mut buffer = [0; 200];
        for expected in ["jail.create_jail_time:12|ms", "repo.example.test_8080/a_b:1|h"] {
            let length = server.recv(&mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected);
        }
    }

    #[test]
    fn without_an_address_and_without_a_listener_nothing_fails() {
        Statsd::new(None).unwrap().event("a");
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let statsd = Statsd::new(Some(gone)).unwrap();
        (0..3).for_each(|_| statsd.event("a"));
    }
}
