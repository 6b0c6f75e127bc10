//! Medians, and tables in Markdown.

use std::fmt::Display;
use std::fs;
use std::process::Command;

/// Says when and on what the figures were measured.
pub fn machine() {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, m)| m);
    let model = model.map_or_else(|| told("sysctl", &["-n", "hw.model"]), str::to_owned);
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = told("uptime", &[]);
    println!(
        "{}, {}, {model} × {processors}, load {}",
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        told("uname", &["-sr"]),
        load.rsplit(": ").next().unwrap_or_default(),
    );
}

/// What a command prints, without the end of its line.
fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Starts a section.
pub fn heading(text: &str) {
    println!("\n## {text}\n");
}

/// Starts a table.
pub fn columns(names: &[&str]) {
    println!("| {} |", names.join(" | "));
    println!("|{}", "---|".repeat(names.len()));
}

/// One line of a table.
pub fn row(cells: &[&dyn Display]) {
    let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
    println!("| {} |", cells.join(" | "));
}

/// The middle one; of an even number, the upper of the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The least one.
pub fn least(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::INFINITY, f64::min)
}
