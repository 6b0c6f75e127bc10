//! Tables for people.

use std::io::{self, ErrorKind, Write};

use crate::fault::{Context, Result};

/// On which side of a column its cells are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// Columns as wide as their widest cell, two blanks between them.
pub fn table(columns: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = columns.iter().map(|(name, _)| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let header: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(columns).zip(&widths).map(|((cell, (_, side)), width)| match side {
            Side::Left => format!("{cell:width$}"),
            Side::Right => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    std::iter::once(&header).chain(rows).map(line).collect()
}

/// Whether somebody still reads standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    There,
    Gone,
}

/// Writes to standard output at once. A reader that has gone, such as head(1), is no failure.
pub fn print(text: &str) -> Result<Reader> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        written => written.map(|()| Reader::There).context(|| "cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["echo".to_owned(), "7".to_owned()], vec!["a-longer-one".to_owned(), "1234".to_owned()]];
        let text = table(&[("NAME", Side::Left), ("N", Side::Right)], &rows);
        assert_eq!(text, "NAME             N\necho             7\na-longer-one  1234\n");
        assert_eq!(table(&[("NAME", Side::Left), ("N", Side::Right)], &[]), "NAME  N\n");
    }
}
