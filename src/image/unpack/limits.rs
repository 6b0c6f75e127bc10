//! How much a layer may ask for.

use std::time::Duration;

/// Caps on one layer. A layer beyond one of them is refused; the sentence names the cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Entries in the layer's tar.
    pub entries: u64,
    /// Bytes of the layer's tar, and bytes that its files claim (a sparse file claims more than it ships).
    pub bytes: u64,
    /// Bytes of a path inside the layer, and of a link's target.
    pub path: usize,
    /// Directories in a path. Each costs a file descriptor while it is worked in.
    pub depth: usize,
    /// Bytes of one extended header (PAX records, GNU long names).
    pub header: u64,
    /// Uncompressed bytes per compressed byte, looked at beyond [`UnpackLimits::ratio_from`].
    pub ratio: u64,
    /// Uncompressed bytes below which the ratio does not matter: a small layer of zeroes is no attack.
    pub ratio_from: u64,
    /// Time from the first byte to the last, fetching included.
    pub time: Duration,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 32 << 30,
            path: 4096,
            depth: 128,
            header: 1 << 20,
            ratio: 500,
            ratio_from: 1 << 30,
            time: Duration::from_secs(3600),
        }
    }
}
