//! The passphrase of a data directory: where it comes from, and `outlive passphrase`, which changes
//! it. It is never given on the command line, which every process of the system can read.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use outlive::{Store, store_is_empty};
use outlive_storage::Unlock;
use zeroize::Zeroizing;

use crate::args::{Data, Passphrase, wrong_usage};
use crate::identity::Secrets;

/// The variables that hold a passphrase where no file does.
pub(crate) const CURRENT: &str = "OUTLIVE_PASSPHRASE";
const NEW: &str = "OUTLIVE_NEW_PASSPHRASE";

/// Bytes of a passphrase, at most: a file that is longer is the wrong one.
const MAX_BYTES: usize = 4_096;

/// The passphrase that was given for a directory.
pub(crate) fn current(data: &Data) -> Result<Option<Unlock>> {
    given(data.passphrase_file.as_deref(), CURRENT)
}

fn given(file: Option<&Path>, variable: &str) -> Result<Option<Unlock>> {
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
        bail!("the passphrase in {whence} is empty");
    }
    if bytes.len() > MAX_BYTES {
        bail!("the passphrase in {whence} is longer than {MAX_BYTES} bytes");
    }
    Ok(Some(Unlock::passphrase(bytes.to_vec())))
}

fn first_line(file: &Path) -> Result<Zeroizing<Vec<u8>>> {
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

/// Sets or changes the passphrase of a directory.
pub(crate) async fn run(args: Passphrase) -> Result<()> {
    let Some(new) = given(args.new_passphrase_file.as_deref(), NEW)? else {
        wrong_usage(
            "the new passphrase is missing; give it with --new-passphrase-file FILE or in OUTLIVE_NEW_PASSPHRASE",
        )
    };
    let dir = &args.data.dir;
    let known = Secrets::read(dir, current(&args.data)?.as_ref())?;
    let Some(secrets) = known else {
        Secrets::of(dir, Some(&new))?;
        eprintln!("outlive: made {}, encrypted", dir.display());
        return Ok(());
    };
    if secrets.store_key.is_some() {
        secrets.write(dir, Some(&new))?;
        eprintln!("outlive: {} has a new passphrase", dir.display());
        return Ok(());
    }
    // Held open until the identity is sealed, so that nobody writes to it in the clear meanwhile.
    let store = crate::data::open(dir, "store")?;
    if !store_is_empty(&store).await? {
        bail!(
            "{} holds sessions in the clear, and they can't be converted; choose a new directory",
            dir.display()
        );
    }
    secrets.with_store_key()?.write(dir, Some(&new))?;
    store.close().await?;
    eprintln!("outlive: {} is encrypted from now on", dir.display());
    Ok(())
}
