//! How far it is, for people: a bar a layer with its bytes and its rate, and one for the layers.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::image::{Digest, Progress, Silent};

/// Bars on a terminal, nothing elsewhere.
pub fn progress() -> Box<dyn Progress> {
    match std::io::stderr().is_terminal() {
        true => Box::new(Bars::default()),
        false => Box::new(Silent),
    }
}

/// A bar for one thing of so many bytes, if that is known; hidden where there is no terminal.
pub fn bar(name: &str, total: Option<u64>) -> ProgressBar {
    let style = match total {
        Some(_) => "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}",
        None => "{prefix} {spinner} {bytes} {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(style).expect("a valid template");
    ProgressBar::new(total.unwrap_or(0)).with_style(style).with_prefix(name.to_owned())
}

#[derive(Default)]
struct Bars {
    all: MultiProgress,
    layers: Mutex<Layers>,
}

#[derive(Default)]
struct Layers {
    count: Option<ProgressBar>,
    bars: HashMap<Digest, ProgressBar>,
    done: HashSet<Digest>,
}

impl Bars {
    fn layers(&self) -> std::sync::MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bars {
    fn layers(&self, count: usize) {
        let style = ProgressStyle::with_template("{pos} of {len} layers").expect("a valid template");
        let bar = self.all.insert(0, ProgressBar::new(count as u64).with_style(style));
        bar.tick();
        // The last image's bar stays as it is.
        if let Some(before) = self.layers().count.replace(bar) {
            before.finish();
        }
        self.layers().done.clear();
    }

    fn layer_started(&self, layer: &Digest, total: Option<u64>) {
        let bar = self.all.add(bar(&layer.hex()[..12], total));
        self.layers().bars.insert(layer.clone(), bar);
    }

    fn bytes(&self, layer: &Digest, count: u64) {
        if let Some(bar) = self.layers().bars.get(layer) {
            bar.inc(count);
        }
    }

    fn layer_done(&self, layer: &Digest) {
        let mut layers = self.layers();
        if let Some(bar) = layers.bars.get(layer) {
            bar.finish();
        }
        if !layers.done.insert(layer.clone()) {
            return;
        }
        if let Some(count) = &layers.count {
            count.inc(1);
            if count.position() == count.length().unwrap_or(0) {
                count.finish();
            }
        }
    }

    fn warn(&self, sentence: &str) {
        let _ = self.all.println(format!("warning: {sentence}"));
    }
}
