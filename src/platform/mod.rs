//! The only place that knows which operating system this is. Equal names behind each choice.

#[cfg(target_os = "freebsd")]
pub mod freebsd;
