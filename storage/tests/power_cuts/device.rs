//! A device that has what was synced, and of what was written since whatever it likes: it writes in
//! any order, page by page. What was done to the names of a directory it has up to any moment since they
//! were synced.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::record::{Call, Change};

/// What is written as a whole, or not at all.
const PAGE: u64 = 4096;

/// The name of no page: that of the length.
const LENGTH: u64 = u64::MAX;

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    since: Vec<Change>,
}

/// Of what was not synced, what the device has when the power goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    All,
    Nothing,
    /// Every page with this probability.
    Some(f64),
    /// Only what was written last: so many calls.
    Last(usize),
}

/// What a name stands for: a directory, or the file with this number.
#[derive(Clone, Copy)]
enum Entry {
    Directory,
    File(usize),
}

/// What was done to the names of a directory. A file system keeps to this order.
enum Naming {
    Give(PathBuf, Entry),
    Take(PathBuf),
    Change(PathBuf, PathBuf),
}

type Names = BTreeMap<PathBuf, Entry>;

#[derive(Default)]
pub(crate) struct Device {
    files: Vec<File>,
    /// As a process sees them.
    names: Names,
    synced: Names,
    /// Since they were synced, of each directory.
    since: HashMap<PathBuf, Vec<Naming>>,
}

impl Device {
    pub(crate) fn take(&mut self, call: &Call) {
        match call {
            Call::Start => {}
            Call::Create { path } if self.file(path).is_some() => {
                self.change(path, Change::Truncate { len: 0 });
            }
            Call::Create { path } => {
                self.name(Naming::Give(path.clone(), Entry::File(self.files.len())));
                self.files.push(File::default());
            }
            Call::CreateDirectory { path } => {
                self.name(Naming::Give(path.clone(), Entry::Directory));
            }
            Call::Change { path, change } => self.change(path, change.clone()),
            Call::WrittenThrough { path, change } => {
                self.change(path, change.clone());
                // Nothing else is written to such a file: this is all that there is since.
                self.sync(path);
            }
            Call::Sync { path, .. } => self.sync(path),
            Call::Remove { path } => self.name(Naming::Take(path.clone())),
            Call::Rename { from, to } => self.name(Naming::Change(from.clone(), to.clone())),
        }
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        match self.names.get(path)? {
            Entry::File(number) => self.files.get_mut(*number),
            Entry::Directory => None,
        }
    }

    fn change(&mut self, path: &Path, change: Change) {
        // One that was removed while it was open is nobody's.
        if let Some(file) = self.file(path) {
            file.since.push(change);
        }
    }

    fn sync(&mut self, path: &Path) {
        if let Some(file) = self.file(path) {
            file.sync();
            self.sync_name(path);
        }
        for naming in self.since.remove(path).unwrap_or_default() {
            naming.apply(&mut self.synced);
        }
    }

    /// A file that was synced can be found: file systems write its name, and what was done to names before,
    /// with it.
    fn sync_name(&mut self, path: &Path) {
        let directory = path.parent().unwrap();
        let Some(since) = self.since.get_mut(directory) else {
            return;
        };
        let named = |naming: &Naming| match naming {
            Naming::Give(name, _) | Naming::Change(_, name) => name == path,
            Naming::Take(_) => false,
        };
        if let Some(at) = since.iter().rposition(named) {
            for naming in since.drain(..=at) {
                naming.apply(&mut self.synced);
            }
        }
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        let directory = naming.directory().to_path_buf();
        self.since.entry(directory).or_default().push(naming);
    }

    /// Writes to `to` what is found of the files below `below` after a power cut.
    pub(crate) fn cut(&self, below: &Path, to: &Path, kept: Kept, rng: &mut fastrand::Rng) {
        let mut names = self.synced.clone();
        for since in self.since.values() {
            let kept = match kept {
                Kept::All => since.len(),
                Kept::Nothing => 0,
                Kept::Some(_) | Kept::Last(_) => rng.usize(..=since.len()),
            };
            for naming in &since[..kept] {
                naming.apply(&mut names);
            }
        }
        // A directory comes before what is in it.
        for (path, entry) in &names {
            let Ok(name) = path.strip_prefix(below) else {
                continue;
            };
            let to = to.join(name);
            match entry {
                Entry::Directory => drop(fs::create_dir(to)),
                // Its directory may have no name.
                Entry::File(number) => drop(fs::write(to, self.files[*number].found(kept, rng))),
            }
        }
    }
}

impl Naming {
    /// The directory that knows the name.
    fn directory(&self) -> &Path {
        let (Self::Give(path, _) | Self::Take(path) | Self::Change(path, _)) = self;
        path.parent().unwrap()
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Give(path, entry) => drop(names.insert(path.clone(), *entry)),
            Self::Take(path) => drop(names.remove(path)),
            Self::Change(from, to) => {
                if let Some(entry) = names.remove(from) {
                    names.insert(to.clone(), entry);
                }
            }
        }
    }
}

impl File {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.since) {
            apply(&change, &mut self.synced, |_| true);
        }
    }

    fn found(&self, kept: Kept, rng: &mut fastrand::Rng) -> Vec<u8> {
        // What is found of a page is what it was at some time: after so many of the changes.
        let mut until: HashMap<u64, usize> = HashMap::new();
        for (at, change) in self.since.iter().enumerate() {
            for page in pages(change) {
                let kept = match kept {
                    Kept::All => true,
                    Kept::Nothing => false,
                    Kept::Some(chance) => rng.f64() < chance,
                    Kept::Last(calls) => at + calls >= self.since.len(),
                };
                if kept {
                    until.insert(page, at);
                }
            }
        }
        let mut found = self.synced.clone();
        for (at, change) in self.since.iter().enumerate() {
            let kept = |page| until.get(&page).is_some_and(|until| at <= *until);
            apply(change, &mut found, kept);
        }
        found
    }
}

fn pages(change: &Change) -> std::ops::Range<u64> {
    match change {
        Change::Truncate { .. } => LENGTH - 1..LENGTH,
        Change::Write { at, data } => at / PAGE..(at + data.len() as u64).div_ceil(PAGE),
    }
}

/// Does those pages of it that are `kept`.
fn apply(change: &Change, found: &mut Vec<u8>, kept: impl Fn(u64) -> bool) {
    match change {
        Change::Truncate { len } => {
            if kept(LENGTH - 1) {
                found.resize(usize::try_from(*len).unwrap(), 0);
            }
        }
        Change::Write { at, data } => {
            let end = at + data.len() as u64;
            for page in pages(change).filter(|page| kept(*page)) {
                let from = (page * PAGE).max(*at);
                let to = ((page + 1) * PAGE).min(end);
                let [from, to] = [from, to].map(|at| usize::try_from(at).unwrap());
                let of = usize::try_from(*at).unwrap();
                found.resize(found.len().max(to), 0);
                found[from..to].copy_from_slice(&data[from - of..to - of]);
            }
        }
    }
}
