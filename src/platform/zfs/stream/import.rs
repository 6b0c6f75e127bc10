//! A file to an image.

use std::io::{Read, Write};
use std::process::Stdio;

use super::archive::Archive;
use super::export::finished;
use super::{Piece, Told, begin};
use crate::fault::{Fault, Kind, Result};
use crate::image::Progress;
use crate::platform::zfs::ZfsStorage;
use crate::platform::zfs::names::{self, Container, LAYER_SNAPSHOT};
use crate::platform::zfs::refusal::{Outcome, Refusal, Why};
use crate::platform::zfs::{command, fuse};

/// Layers that were received and are not yet in `layers`: each one's place in the image, and its dataset.
type Staged = Vec<(usize, String)>;

impl ZfsStorage {
    /// Takes over the image of an archive: all its layers are here when this returns. What a failed import has
    /// received is destroyed. The image is not recorded anywhere: see [`crate::image::Store::adopt`].
    ///
    /// Fails with `NotFound` when a layer that the archive begins above is not here, `Invalid` when a stream is not
    /// what it should be.
    pub fn import(&self, archive: &Archive, progress: &dyn Progress) -> Result<()> {
        let mut staged = Staged::new();
        let received = self.receive_missing(archive, &mut staged, progress).and_then(|()| {
            let layers = &archive.manifest.image.layers;
            staged.iter().try_for_each(|(index, name)| self.settle(name, layers[*index].chain_id.hex()))
        });
        received.map_err(|fault| {
            let names = staged.iter().rev().map(|(_, name)| name);
            names.fold(fault, |fault, name| fault.and_cleanup(self.discard_staging(name)))
        })
    }

    /// Receives every layer that is not here, lowest first.
    fn receive_missing(&self, archive: &Archive, staged: &mut Staged, progress: &dyn Progress) -> Result<()> {
        let manifest = &archive.manifest;
        let first = manifest.first();
        for layer in &manifest.image.layers[..first] {
            if !self.has_layer(layer.chain_id.hex())? {
                return Err(Fault::not_found(format!(
                    "it begins above layer {}, which is not here: import the archive that has it first",
                    layer.chain_id
                )));
            }
        }
        progress.layers(manifest.pieces.len());
        for (index, piece) in (first..).zip(&manifest.pieces) {
            if !self.has_layer(piece.layer.hex())? {
                progress.layer_started(&piece.layer, Some(piece.unpacked));
                let name = names::staging(&self.realm, piece.layer.hex());
                match self.receive(archive, piece, &name, progress) {
                    Ok(()) => staged.push((index, name)),
                    Err(fault) if fault.kind() == Kind::NotFound && !piece.full => {
                        staged.push((index, self.receive_alone(archive, index - first)?));
                    }
                    Err(fault) => return Err(fault),
                }
            }
            progress.layer_done(&piece.layer);
        }
        Ok(())
    }

    /// Receives one stream into a staging dataset, complete but for its place. `NotFound` when what it is incremental
    /// from is not in the pool. On failure there is no dataset.
    pub(super) fn receive(&self, archive: &Archive, piece: &Piece, name: &str, progress: &dyn Progress) -> Result<()> {
        let received = archive.unpack(piece, |stream| {
            let mut stream = Told { inner: stream, layer: &piece.layer, progress };
            let head = begin::check(&mut stream, piece.full)?;
            let dataset = self.parent.child(Container::Staging, name);
            receive_into(&format!("{dataset}@{LAYER_SNAPSHOT}"), &mut head.chain(&mut stream))
                .map_err(|refusal| self.fault(refusal, format!("cannot receive layer {}", piece.layer)))
        });
        received.and_then(|()| self.adopt(name)).map_err(|fault| fault.and_cleanup(self.discard_staging(name)))
    }

    /// Gives a received dataset what one that was made here has.
    fn adopt(&self, name: &str) -> Result<()> {
        self.mounting.unmount(&self.parent, Container::Staging, name)?;
        let dataset = self.parent.child(Container::Staging, name);
        for option in command::options(&self.labels(Container::Layers)).iter().filter(|option| *option != "-o") {
            command::zfs(&["set", option, &dataset])
                .map_err(|refusal| self.fault(refusal, format!("cannot set {option} on {dataset}")))?;
        }
        Ok(())
    }
}

/// Gives a stream to `zfs receive`.
fn receive_into(snapshot: &str, stream: &mut dyn Read) -> Outcome {
    let turn = fuse::turn("receive");
    let mut receive = command::program(&["receive", snapshot]);
    turn.share(&mut receive);
    let mut child = receive
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(command::not_started)?;
    let copied = match child.stdin.take() {
        Some(mut stdin) => std::io::copy(stream, &mut stdin).and_then(|_| stdin.flush()),
        None => Ok(()),
    };
    // A receive that has failed has closed its end: its reason is the one that counts.
    finished(child)?;
    copied.map_err(|error| Refusal { why: Why::Other, said: error.to_string() })
}
