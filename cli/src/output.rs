//! What goes to stdout: lines for people, or one JSON object a line for scripts. And hints to stderr.

use std::fmt::{self, Display};
use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::{Result, anyhow};
use serde::Serialize;

/// Nobody reads what goes to stdout any more, as behind `| head -1`. Whoever closed it knows.
#[derive(Debug)]
pub(crate) struct Closed;

impl Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl std::error::Error for Closed {}

fn write(parts: &[&[u8]]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = parts.iter().try_for_each(|part| stdout.write_all(part));
    written.and_then(|()| stdout.flush()).map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe {
            return Closed.into();
        }
        anyhow!("can't write the output: {error}")
    })
}

/// Writes one line and flushes it, so that what was printed is out of our hands.
pub(crate) fn line(bytes: &[u8]) -> Result<()> {
    write(&[bytes, b"\n"])
}

/// Writes bytes as they are, and flushes them.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    write(&[bytes])
}

/// Says something on stderr. Unlike `eprintln!` it does not panic where nobody reads there.
pub(crate) fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "outlive: {what}");
}

/// Whether a terminal shows what goes to stdout.
pub(crate) fn is_shown() -> bool {
    io::stdout().is_terminal()
}

/// Whether a terminal does something else with a character than to show it where it stands: those that
/// control it, and those that turn around what is read.
fn plays(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What a terminal may show of a text: whoever wrote it may have put anything into it.
pub(crate) fn shown(text: &str) -> String {
    let shown = text.chars().filter_map(|c| match c {
        // Words do not run together, and a line stays one.
        '\t' | '\n' => Some(' '),
        c => (!plays(c)).then_some(c),
    });
    shown.collect()
}

/// Writes an object as one line of JSON. In a terminal what plays with it is escaped, which is the same
/// object.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<()> {
    let mut text = serde_json::to_string(value)?;
    if is_shown() && text.contains(plays) {
        let escape = |c: char| match c {
            c if plays(c) => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        };
        text = text.chars().map(escape).collect();
    }
    line(text.as_bytes())
}
