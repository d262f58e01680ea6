//! Secrets that a person gives, such as a passphrase: the first line of a file, or else a variable.
//! None has to be on the command line, which every process of the system can read.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use zeroize::Zeroizing;

/// Bytes of one, at most: a file that is longer is the wrong one.
pub(crate) const MAX_BYTES: usize = 4_096;

/// The secret that was given, if one was. `what` is what to call it.
pub(crate) fn given(
    what: &str,
    file: Option<&Path>,
    variable: &str,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let (bytes, whence) = if let Some(file) = file {
        let whence = file.display().to_string();
        let read = first_line(file).with_context(|| format!("can't read {whence}"))?;
        (read, whence)
    } else if let Some(value) = std::env::var_os(variable) {
        let bytes = Zeroizing::new(value.into_encoded_bytes());
        (bytes, variable.to_owned())
    } else {
        return Ok(None);
    };
    if bytes.is_empty() {
        bail!("the {what} in {whence} is empty");
    }
    if bytes.len() > MAX_BYTES {
        bail!("the {what} in {whence} is longer than {MAX_BYTES} bytes");
    }
    Ok(Some(bytes))
}

/// The first line of a file, or of what there is of it within the bound.
pub(crate) fn first_line(file: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 2));
    // One byte more than may be, and a line end, so that what is too long shows.
    File::open(file)?
        .take(MAX_BYTES as u64 + 2)
        .read_to_end(&mut bytes)?;
    if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        bytes.truncate(end);
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(bytes)
}
