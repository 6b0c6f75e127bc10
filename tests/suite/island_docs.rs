//! docs/sky-island.md: every test that its table names is there.

use std::path::Path;

use crate::linux_only;
use crate::support::parts;

/// The names of all functions in Rust files below a directory.
fn functions(dir: &Path, found: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).expect("reading sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).expect("reading a source");
            let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")?.split('(').next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn each_of_the_21_defects_names_tests_that_exist() {
    linux_only!("reads the project's sources");
    let text = std::fs::read_to_string(parts::project().join("docs/sky-island.md")).expect("the page");
    let mut known = std::collections::BTreeSet::new();
    ["src", "tests"].iter().for_each(|dir| functions(&parts::project().join(dir), &mut known));
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let number: usize = cells.first()?.parse().ok()?;
        Some((number, (*cells.last()?).to_owned()))
    });
    let mut numbers = Vec::new();
    for (number, tests) in rows {
        numbers.push(number);
        for test in tests.split(", ") {
            let name = test.trim_matches('`');
            assert!(known.contains(name), "defect {number}: no test is called {name}");
        }
    }
    assert_eq!(numbers, (1..=21).collect::<Vec<_>>());
}
