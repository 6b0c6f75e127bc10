//! The only place that knows which operating system this is. Equal names behind each choice.

pub mod xattr;
