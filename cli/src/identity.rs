//! The file `identity` of a data directory: the peer's secret, in the clear or sealed with a
//! passphrase.
//!
//! ```text
//!   0f1e2d…                      in the clear: the seed of the key, in hex
//!
//!   outlive identity 1           sealed: this line, and a sealed secret in hex, which holds the
//!   01014000…                    seed and the key of the store
//! ```
//!
//! That the store's key is kept here makes a change of the passphrase the replacement of one file.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use data_encoding::HEXLOWER;
use outlive::Identity;
use outlive_storage::{Cost, SealedSecret, Unlock, UnlockError};
use zeroize::Zeroizing;

const FILE_NAME: &str = "identity";

/// The name of the store beside it.
pub(crate) const STORE: &str = "store";

/// How the name of a file ends that is to take the place of another.
const NEW: &str = ".new";

/// The first line of a sealed file, up to its version.
const HEAD: &str = "outlive identity ";

/// The newest version of the sealed form.
const VERSION: &str = "1";

/// What the sealed secret is for.
const PURPOSE: &str = "outlive identity";

/// A directory has a store, and no identity whose store it could be. A new one would be another peer, who
/// has no business with it.
#[derive(Debug)]
pub(crate) struct IdentityLost(PathBuf);

impl fmt::Display for IdentityLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dir, path) = (self.0.display(), self.0.join(FILE_NAME));
        write!(
            f,
            "{dir} has sessions, and the identity they belong to is gone; bring back the file {}, or \
             choose another directory with --data",
            path.display()
        )
    }
}

impl std::error::Error for IdentityLost {}

type Secret = Zeroizing<[u8; 32]>;

/// The secrets of a data directory.
pub(crate) struct Secrets {
    seed: Secret,
    /// The key of the store; none if directory and store are in the clear.
    pub(crate) store_key: Option<Secret>,
}

fn random() -> Result<Secret> {
    let mut bytes = Secret::default();
    getrandom::fill(&mut bytes[..]).context("the operating system gave no random numbers")?;
    Ok(bytes)
}

impl Secrets {
    /// Those of the directory `dir`, made if it has none: in the clear, or with a key for the store
    /// if there is a passphrase.
    ///
    /// # Errors
    /// [`IdentityLost`], and what reading and writing them fails with.
    pub(crate) fn of(dir: &Path, passphrase: Option<&Unlock>) -> Result<Self> {
        // Looked for first: another process that makes the directory begins with the identity.
        let store = dir.join(STORE).exists();
        if let Some(known) = Self::read(dir, passphrase)? {
            return Ok(known);
        }
        if store {
            return Err(IdentityLost(dir.to_owned()).into());
        }
        let new = Self {
            seed: random()?,
            store_key: passphrase.map(|_| random()).transpose()?,
        };
        if new.put(dir, passphrase, Place::Free)? {
            return Ok(new);
        }
        // Another process was first: its peer it is.
        Self::read(dir, passphrase)?
            .with_context(|| format!("{} was made and is gone again", dir.display()))
    }

    /// Whether the directory `dir` has any, or had.
    pub(crate) fn were_in(dir: &Path) -> bool {
        // What is there and can't be read is told when it is read.
        let is_there = |name| !matches!(fs::metadata(dir.join(name)), Err(error) if error.kind() == io::ErrorKind::NotFound);
        is_there(FILE_NAME) || is_there(STORE)
    }

    /// Those of the directory `dir`, if it has any.
    pub(crate) fn read(dir: &Path, passphrase: Option<&Unlock>) -> Result<Option<Self>> {
        let path = dir.join(FILE_NAME);
        let text = match fs::read(&path).map(Zeroizing::new) {
            // What is no text is damaged, as what is another one.
            Ok(bytes) => Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("can't read {}", path.display()));
            }
        };
        let sealed = text.strip_prefix(HEAD).map(|rest| rest.split_once('\n'));
        let known = match (sealed, passphrase) {
            (Some(None), _) => None,
            (Some(Some((VERSION, body))), Some(passphrase)) => open(dir, body, passphrase)?,
            (Some(Some((VERSION, _))), None) => bail!(
                "{} is encrypted; give its passphrase with --passphrase-file or in OUTLIVE_PASSPHRASE",
                dir.display()
            ),
            (Some(Some(_)), _) => bail!(
                "a newer version of outlive wrote {}; use that one",
                path.display()
            ),
            (None, Some(_)) if seed(&text).is_some() => bail!(
                "{} is not encrypted; leave the passphrase out, or set one with `outlive passphrase`",
                dir.display()
            ),
            (None, _) => seed(&text).map(|seed| Self {
                seed,
                store_key: None,
            }),
        };
        let known = known.with_context(|| {
            let path = path.display();
            format!("{path} is damaged; restore it from a backup: who has it is this peer")
        })?;
        Ok(Some(known))
    }

    /// Gives secrets that were in the clear a key for a store.
    pub(crate) fn with_store_key(mut self) -> Result<Self> {
        if self.store_key.is_none() {
            self.store_key = Some(random()?);
        }
        Ok(self)
    }

    /// Writes them to the directory `dir`, in place of what was there, as a whole or not at all.
    pub(crate) fn write(&self, dir: &Path, passphrase: Option<&Unlock>) -> Result<()> {
        self.put(dir, passphrase, Place::Any).map(drop)
    }

    /// Returns whether they are there now.
    fn put(&self, dir: &Path, passphrase: Option<&Unlock>, place: Place) -> Result<bool> {
        let text = match (&self.store_key, passphrase) {
            (Some(store_key), Some(passphrase)) => {
                let secrets = Zeroizing::new([&self.seed[..], &store_key[..]].concat());
                let sealed = SealedSecret::seal(PURPOSE, &secrets, passphrase, Cost::DEFAULT)?;
                format!("{HEAD}{VERSION}\n{}\n", HEXLOWER.encode(&sealed.to_bytes()))
            }
            (None, None) => HEXLOWER.encode(&self.seed[..]),
            (Some(_), None) | (None, Some(_)) => {
                bail!("a directory is encrypted as a whole, or not at all")
            }
        };
        let text = Zeroizing::new(text);
        let path = dir.join(FILE_NAME);
        put(dir, &path, text.as_bytes(), place)
            .with_context(|| format!("can't write {}", path.display()))
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::from_seed(*self.seed)
    }
}

/// The seed in a file in the clear.
fn seed(text: &str) -> Option<Secret> {
    let seed = Zeroizing::new(HEXLOWER.decode(text.trim().as_bytes()).ok()?);
    Some(Zeroizing::new(<[u8; 32]>::try_from(&seed[..]).ok()?))
}

/// The secrets in the body of a sealed file; none if it is damaged.
fn open(dir: &Path, body: &str, passphrase: &Unlock) -> Result<Option<Secrets>> {
    let Ok(sealed) = HEXLOWER.decode(body.trim().as_bytes()) else {
        return Ok(None);
    };
    let opened = SealedSecret::from_bytes(&sealed).and_then(|s| s.open(PURPOSE, passphrase));
    let opened = match opened {
        Ok(opened) => opened,
        Err(UnlockError::WrongKey) => {
            bail!(
                "this is not the passphrase of {}; try another",
                dir.display()
            )
        }
        Err(UnlockError::Damaged(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let halves = opened.split_first_chunk::<32>();
    let halves = halves.and_then(|(seed, key)| Some((seed, <&[u8; 32]>::try_from(key).ok()?)));
    Ok(halves.map(|(seed, key)| Secrets {
        seed: Zeroizing::new(*seed),
        store_key: Some(Zeroizing::new(*key)),
    }))
}

/// Where a file may be put.
#[derive(Clone, Copy)]
enum Place {
    /// Only where there is none: two processes may make the directory at once.
    Free,
    /// In place of the one that is there.
    Any,
}

/// Makes a directory for its owner alone, if it is not there.
fn make(dir: &Path) -> io::Result<()> {
    let missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let made: Vec<_> = dir.ancestors().take_while(missing).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    // The name of each is kept in the one above it.
    made.into_iter().filter_map(Path::parent).try_for_each(sync)
}

/// Makes the names in a directory durable.
fn sync(dir: &Path) -> io::Result<()> {
    let here = dir.as_os_str().is_empty();
    let dir = if here { Path::new(".") } else { dir };
    // Elsewhere a directory can't be opened to be synced.
    if cfg!(unix) {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Removes what processes left that were killed while they put an identity there: it may be a seed in
/// the clear.
fn remove_leftovers(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let middle = name.to_str().and_then(|name| name.strip_prefix(FILE_NAME));
        if middle.is_some_and(|middle| middle.starts_with('.') && middle.ends_with(NEW)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A name that no other file has, and nobody can know before.
fn a_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(HEXLOWER.encode(&bytes))
}

/// Puts a file there as a whole or not at all, and so that a crash does not take it: who has lost it is
/// another peer. Returns whether its place was free.
fn put(dir: &Path, path: &Path, text: &[u8], place: Place) -> io::Result<bool> {
    make(dir)?;
    // One process at a time. Where a directory can't be locked, what others left stays: they may be
    // at it.
    let alone = fs::File::open(dir)?;
    if alone.lock().is_ok() {
        remove_leftovers(dir)?;
    }
    let new = path.with_extension(format!("{}{NEW}", a_name()?));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    if let Place::Free = place {
        let linked = fs::hard_link(&new, path);
        let taken = matches!(&linked, Err(error) if error.kind() == io::ErrorKind::AlreadyExists);
        if linked.is_ok() || taken {
            fs::remove_file(&new)?;
            sync(dir)?;
            return Ok(!taken);
        }
        // A file system without hard links: two processes at once are beyond it.
    }
    fs::rename(&new, path)?;
    sync(dir)?;
    Ok(true)
}
