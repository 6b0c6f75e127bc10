//! An image like those that people ship, made on the spot and always the same: three gzip layers, 8,000 files,
//! 170 MB of text that shrinks by 2.5.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::support::image::{Image, Layer};

/// Files and bytes of each layer, lowest first.
const LAYERS: [(usize, usize); 3] = [(4_500, 95_000_000), (2_500, 53_000_000), (1_000, 22_000_000)];

/// The image; `seed` decides its uppermost layer, the two below are the same for all.
pub fn image(seed: u64) -> Image {
    let words = words();
    let mut image = Image::new().set("Entrypoint", json!(["/bin/none"]));
    for (number, (files, bytes)) in LAYERS.into_iter().enumerate() {
        let top = number + 1 == LAYERS.len();
        let random = StdRng::seed_from_u64(number as u64 + if top { 100 * seed } else { 0 });
        image = image.layer(layer(number, files, bytes, &words, random));
    }
    image
}

/// Bytes of the files in it.
pub fn bytes() -> usize {
    LAYERS.iter().map(|(_, bytes)| bytes).sum()
}

/// How many files are in it.
pub fn files() -> usize {
    LAYERS.iter().map(|(files, _)| files).sum()
}

fn words() -> Vec<String> {
    let mut random = StdRng::seed_from_u64(7);
    let letter = |random: &mut StdRng| char::from(random.random_range(b'a'..=b'z'));
    (0..400).map(|_| (0..random.random_range(2..10)).map(|_| letter(&mut random)).collect()).collect()
}

/// Many small files and some large ones: a size is drawn by its logarithm.
fn layer(number: usize, files: usize, bytes: usize, words: &[String], mut random: StdRng) -> Layer {
    let weights: Vec<f64> = (0..files).map(|_| random.random_range(0.0..7.0_f64).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut layer = Layer::new().directory(&format!("l{number}"), 0o755);
    for (file, weight) in weights.into_iter().enumerate() {
        let directory = format!("l{number}/d{}", file / 40);
        if file % 40 == 0 {
            layer = layer.directory(&directory, 0o755);
        }
        let size = (weight / sum * bytes as f64) as usize;
        layer = layer.file(&format!("{directory}/f{file}"), 0o644, &text(size, words, &mut random));
    }
    layer
}

/// Words, the first of the list more often than the last, and now and then a number.
fn text(size: usize, words: &[String], random: &mut StdRng) -> Vec<u8> {
    let mut text = Vec::with_capacity(size + 16);
    while text.len() < size {
        let place = random.random_range(0.0..1.0_f64).powi(3) * words.len() as f64;
        text.extend_from_slice(words[place as usize].as_bytes());
        text.push(b' ');
        if random.random_range(0..120) == 0 {
            text.extend_from_slice(format!("{:x}\n", random.random::<u32>()).as_bytes());
        }
    }
    text.truncate(size);
    text
}
