//! What an image operation tells whoever waits for it.

use super::Digest;

/// Hears how far loading or pulling has come. Called from several threads, often; must be quick.
pub trait Progress: Send + Sync {
    /// An image of this many layers is next; those that are here already count, too.
    fn layers(&self, count: usize);

    /// A layer (named by its diff-id) is being fetched and unpacked; `total` is its size as shipped, where known.
    fn layer_started(&self, layer: &Digest, total: Option<u64>);

    /// `count` more bytes of the layer as shipped have arrived.
    fn bytes(&self, layer: &Digest, count: u64);

    /// The layer is in storage: unpacked now, or there before.
    fn layer_done(&self, layer: &Digest);

    /// Something that did not stop the operation but should be known: one sentence.
    fn warn(&self, sentence: &str);
}

/// Says nothing; warnings go to the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn layers(&self, _: usize) {}

    fn layer_started(&self, _: &Digest, _: Option<u64>) {}

    fn bytes(&self, _: &Digest, _: u64) {}

    fn layer_done(&self, _: &Digest) {}

    fn warn(&self, sentence: &str) {
        tracing::warn!("{sentence}");
    }
}
