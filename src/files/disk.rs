//! What is done on the disk for files. Everything here waits for the disk, on a thread of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::error::FileError;
use super::name;

/// Names that are tried for one file before it is given up.
pub(super) const NAMES: u32 = 10_000;

/// Bytes read at once to hash a file, by all cores: 1 MiB.
const HASHED_AT_ONCE: usize = 1024 * 1024;

/// Runs `work` where it may wait. Dropped half-way, the work is done all the same.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(FileError::io("work on", "")(io::Error::other(error))),
    }
}

/// Bytes of a file, and where in it they belong.
pub(super) type Piece = (u64, Bytes);

/// What tells whether a file is still what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) modified: i128,
}

pub(super) fn stamp(file: &File) -> io::Result<Stamp> {
    let metadata = file.metadata()?;
    let modified = match metadata.modified()?.duration_since(UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => i128::try_from(before.duration().as_nanos()).map_or(i128::MIN, |n| -n),
    };
    Ok(Stamp {
        size: metadata.len(),
        modified,
    })
}

/// Opens a file for reading. What is no regular file is [`ErrorKind::InvalidInput`], a link too.
pub(super) fn open(path: &Path) -> io::Result<File> {
    open_with(path, OpenOptions::new().read(true))
}

/// Opens a file for writing, as it is. What is no regular file is [`ErrorKind::InvalidInput`], a link
/// too.
pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    open_with(path, OpenOptions::new().write(true))
}

fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Looked at first: opened, a pipe would wait for who is at its other end.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    // Whoever may write in the directory may put something else there meanwhile.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(ErrorKind::InvalidInput.into())
    }
}

/// The hash of what is left of a file.
pub(super) fn hash(mut file: &File) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; HASHED_AT_ONCE];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(*hasher.finalize().as_bytes()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update_rayon(buffer.get(..read).unwrap_or_default());
    }
}

/// Makes an empty file with a free name like `name` and this ending, which no other file has. Nothing is
/// overwritten, and no link is followed. An empty one that is there was made by a process that ended
/// before it could write that down. It is made anew: should it be another's after all, they could write it.
pub(super) fn create_part(
    directory: &Path,
    name: &str,
    ending: &str,
) -> Result<PathBuf, FileError> {
    let create = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
    for path in names(directory, name, ending) {
        let created = match create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && is_empty(&path) => {
                fs::remove_file(&path).and_then(|()| create(&path))
            }
            created => created,
        };
        match created {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(FileError::io("create", path)(error)),
        }
    }
    Err(no_free_name(directory))
}

fn is_empty(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|here| here.is_file() && here.len() == 0)
}

/// A name like `name` at which nothing lies, a link to nowhere neither.
pub(super) fn free(directory: &Path, name: &str) -> Result<PathBuf, FileError> {
    for path in names(directory, name, "") {
        match fs::symlink_metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(FileError::io("read", path)(error)),
        }
    }
    Err(no_free_name(directory))
}

fn names(directory: &Path, name: &str, ending: &str) -> impl Iterator<Item = PathBuf> {
    (1..=NAMES).map(move |n| directory.join(name::numbered(name, n) + ending))
}

pub(super) fn no_free_name(directory: &Path) -> FileError {
    let taken = io::Error::from(ErrorKind::AlreadyExists);
    FileError::io("find a free name in", directory)(taken)
}

/// Puts pieces where they belong, and returns when they are durable. Fails without the file even if
/// there are none.
pub(super) fn write(path: &Path, pieces: &[Piece]) -> Result<(), FileError> {
    let written = || {
        let file = open_to_write(path)?;
        if pieces.is_empty() {
            return Ok(());
        }
        place(&file, pieces)
    };
    written().map_err(FileError::io("write", path))
}

/// Puts pieces where they belong, and returns when they are durable.
pub(super) fn place(mut file: &File, pieces: &[Piece]) -> io::Result<()> {
    for (offset, bytes) in pieces {
        file.seek(SeekFrom::Start(*offset))?;
        file.write_all(bytes)?;
    }
    file.sync_data()
}

/// How long a file is; none if it is gone, also if a link has taken its place.
pub(super) fn length(path: &Path) -> Result<Option<u64>, FileError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Ok(None),
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io("read", path)(error)),
    }
}

/// Whether a file holds this and nothing else.
pub(super) fn holds(path: &Path, size: u64, expected: [u8; 32]) -> Result<bool, FileError> {
    let held = || {
        let file = open(path)?;
        Ok(file.metadata()?.len() == size && hash(&file)? == expected)
    };
    held().map_err(FileError::io("read", path))
}

/// Whether this file is at a path. What is no regular file is another one.
pub(super) fn is_there(path: &Path, size: u64, expected: [u8; 32]) -> Result<bool, FileError> {
    match holds(path, size, expected) {
        Err(FileError::Io { error, .. })
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput
            ) =>
        {
            Ok(false)
        }
        held => held,
    }
}

/// Gives a file its name, unless something lies there already, and returns when that is durable.
/// Returns whether it has it.
pub(super) fn rename(from: &Path, to: &Path) -> Result<bool, FileError> {
    match rename_to_free(from, to) {
        Ok(()) => sync_name(to).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(FileError::io("rename", from)(error)),
    }
}

fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;

        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system knows how to.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            renamed => return Ok(renamed?),
        }
    }
    rename_by_link(from, to)
}

/// Renames where the system has no way to do so without replacing: a second name is no rename, and fails
/// if it is taken.
fn rename_by_link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
        // A process that ended between the two may have made it before.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match is_one_file(from, to)? {
            true => fs::remove_file(from),
            false => Err(error),
        },
        // No file has two names here.
        Err(_) => {
            OpenOptions::new().write(true).create_new(true).open(to)?;
            fs::rename(from, to).inspect_err(|_| drop(fs::remove_file(to)))
        }
    }
}

#[cfg(unix)]
fn is_one_file(one: &Path, other: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let which = |path| fs::symlink_metadata(path).map(|of| (of.dev(), of.ino()));
    Ok(which(one)? == which(other)?)
}

#[cfg(not(unix))]
fn is_one_file(_: &Path, _: &Path) -> io::Result<bool> {
    // There is no telling: it is kept under both names.
    Ok(false)
}

/// Returns when it is durable that a file has this name.
pub(super) fn sync_name(path: &Path) -> Result<(), FileError> {
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(FileError::io("write", directory))?;
    }
    Ok(())
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(FileError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rename = fn(&Path, &Path) -> Result<bool, FileError>;

    /// As the system does it, and as it is done where that can't.
    const WAYS: [Rename; 2] = [rename, |from, to| match rename_by_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(FileError::io("rename", from)(error)),
    }];

    #[test]
    fn a_file_is_renamed_to_a_name_that_is_free_and_to_no_other() {
        for rename in WAYS {
            let disk = tempfile::tempdir().unwrap();
            let path = |name| disk.path().join(name);
            fs::write(path("a.part"), b"content").unwrap();
            fs::write(path("a"), b"").unwrap();
            fs::create_dir(path("b")).unwrap();
            for taken in ["a", "b"] {
                assert!(!rename(&path("a.part"), &path(taken)).unwrap());
            }
            assert_eq!(fs::read(path("a")).unwrap(), b"");
            assert!(rename(&path("a.part"), &path("c")).unwrap());
            assert_eq!(fs::read(path("c")).unwrap(), b"content");
            let gone = rename(&path("a.part"), &path("d")).unwrap_err();
            assert!(gone.is_missing(), "{gone}");
        }
    }

    #[test]
    fn a_file_that_had_both_names_when_a_process_ended_has_one_in_the_end() {
        let disk = tempfile::tempdir().unwrap();
        let (part, name) = (disk.path().join("a.part"), disk.path().join("a"));
        fs::write(&part, b"content").unwrap();
        fs::hard_link(&part, &name).unwrap();
        rename_by_link(&part, &name).unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"content");
        assert!(!part.exists());
    }
}
