//! A terminal for the program: what it writes there, and what somebody who looks at it sees in the end.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Command, ExitStatus};

/// Wide enough that nothing the program says is broken.
const SIZE: libc::winsize = libc::winsize { ws_row: 50, ws_col: 300, ws_xpixel: 0, ws_ypixel: 0 };

/// Runs a command with a terminal as its standard streams; gives everything it wrote, and how it ended.
pub fn run(mut command: Command) -> (String, ExitStatus) {
    let (mut ours, theirs) = open();
    let stream = || theirs.try_clone().expect("cloning a terminal");
    command.env("TERM", "xterm").stdin(stream()).stdout(stream()).stderr(stream());
    let mut child = command.spawn().expect("running a program on a terminal");
    // It ends when the last of those who have it open has gone.
    drop((command, theirs));
    let mut told = Vec::new();
    let mut piece = [0; 4096];
    // Linux says EIO then, FreeBSD that it has ended.
    while let Ok(read @ 1..) = ours.read(&mut piece) {
        told.extend_from_slice(&piece[..read]);
    }
    (String::from_utf8_lossy(&told).into_owned(), child.wait().expect("waiting for the program"))
}

/// Both ends of a new terminal, neither of which children inherit.
fn open() -> (File, File) {
    let (mut ours, mut theirs, mut size) = (-1, -1, SIZE);
    let none = std::ptr::null_mut();
    // SAFETY: both numbers and the size are valid for the call; name and settings may be absent (openpty(3)).
    let opened = unsafe { libc::openpty(&mut ours, &mut theirs, none, none.cast(), &raw mut size) };
    assert_eq!(opened, 0, "opening a terminal: {}", std::io::Error::last_os_error());
    // SAFETY: openpty gave two open descriptors that nobody else has.
    let ends = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    for end in [&ends.0, &ends.1] {
        // SAFETY: the descriptor is open, and F_SETFD takes a number.
        unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    ends
}

/// What a terminal shows after this was written to it, without empty lines. It knows what the program uses: going to
/// another line or column, and clearing (ECMA-48, CUU, CUD, CUF, CHA, EL, ED).
pub fn screen(told: &str) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![Vec::new()], 0, 0);
    let mut chars = told.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(chars.next(), Some('['), "an escape that is not known: {told:?}");
                let rest = chars.as_str();
                let end = rest.find(|c| matches!(c, '@'..='~')).expect("an escape's end");
                let (count, last) = (&rest[..end], &rest[end..=end]);
                chars = rest[end + 1..].chars();
                let number = count.parse().unwrap_or(1);
                let line: &mut Vec<char> = &mut lines[row];
                match (count, last) {
                    (_, "A") => row = row.saturating_sub(number),
                    (_, "B") => row += number,
                    (_, "C") => column += number,
                    (_, "G") => column = number - 1,
                    ("2", "K") => line.clear(),
                    ("" | "0", "K") => line.truncate(column),
                    ("" | "0", "J") => {
                        line.truncate(column);
                        lines.truncate(row + 1);
                    }
                    (_, "m") | ("?25", _) => {}
                    other => panic!("a sequence that is not known: {other:?}"),
                }
            }
            c => {
                // The last column holds the cursor until there is more to show.
                if column == usize::from(SIZE.ws_col) {
                    (row, column) = (row + 1, 0);
                    lines.resize(lines.len().max(row + 1), Vec::new());
                }
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    let lines = lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}
