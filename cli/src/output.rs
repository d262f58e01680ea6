//! What goes to stdout: lines for people, or one JSON object a line for scripts. And hints to stderr.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

/// Writes one line and flushes it, so that what was printed is out of our hands.
pub(crate) fn line(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// Writes bytes as they are, and flushes them.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Says something on stderr. Unlike `eprintln!` it does not panic where nobody reads there.
pub(crate) fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "outlive: {what}");
}

/// Writes an object as one line of JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> io::Result<()> {
    line(&serde_json::to_vec(value)?)
}
