//! The passphrase of a data directory: where it comes from, and `outlive passphrase`, which changes
//! it.

use std::path::Path;

use anyhow::{Result, bail};
use outlive::{Store, store_is_empty};
use outlive_storage::Unlock;

use crate::args::{Data, Passphrase};
use crate::given::WrongUsage;
use crate::identity::{STORE, Secrets};
use crate::secret;

/// The variables that hold a passphrase where no file does.
pub(crate) const CURRENT: &str = "OUTLIVE_PASSPHRASE";
const NEW: &str = "OUTLIVE_NEW_PASSPHRASE";

/// The passphrase that was given for a directory.
pub(crate) fn current(data: &Data) -> Result<Option<Unlock>> {
    given(data.passphrase_file.as_deref(), CURRENT)
}

fn given(file: Option<&Path>, variable: &str) -> Result<Option<Unlock>> {
    let given = secret::given("passphrase", file, variable)?;
    Ok(given.map(|bytes| Unlock::passphrase(bytes.to_vec())))
}

/// Sets or changes the passphrase of a directory.
pub(crate) async fn run(args: Passphrase) -> Result<()> {
    let Some(new) = given(args.new_passphrase_file.as_deref(), NEW)? else {
        bail!(WrongUsage::new(
            "the new passphrase is missing; give it with --new-passphrase-file FILE or in OUTLIVE_NEW_PASSPHRASE",
        ))
    };
    let dir = &args.data.dir;
    let known = Secrets::read(dir, current(&args.data)?.as_ref())?;
    let Some(secrets) = known else {
        Secrets::of(dir, Some(&new))?;
        crate::output::say(format_args!("made {}, encrypted", dir.display()));
        return Ok(());
    };
    if secrets.store_key.is_some() {
        secrets.write(dir, Some(&new))?;
        crate::output::say(format_args!("{} has a new passphrase", dir.display()));
        return Ok(());
    }
    // Held open until the identity is sealed, so that nobody writes to it in the clear meanwhile.
    let store = crate::data::open(dir, STORE)?;
    if !store_is_empty(&store).await? {
        bail!(
            "{} holds sessions in the clear, and they can't be converted; choose a new directory",
            dir.display()
        );
    }
    secrets.with_store_key()?.write(dir, Some(&new))?;
    store.close().await?;
    crate::output::say(format_args!("{} is encrypted from now on", dir.display()));
    Ok(())
}
