//! A device that has what was synced, and of what was written since whatever it likes: it writes in
//! any order, page by page.

use std::collections::HashMap;
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

/// Files by their names. Names are on the device at once.
#[derive(Default)]
pub(crate) struct Device {
    files: HashMap<PathBuf, File>,
}

impl Device {
    pub(crate) fn take(&mut self, call: &Call) {
        match call {
            Call::Change { path, change, .. } => {
                let file = self.files.entry(path.clone()).or_default();
                file.since.push(change.clone());
            }
            Call::WrittenThrough { path, change } => {
                let file = self.files.entry(path.clone()).or_default();
                file.since.push(change.clone());
                // Nothing else is written to such a file: this is all that there is since.
                file.sync();
            }
            Call::Sync { path, .. } => {
                if let Some(file) = self.files.get_mut(path) {
                    file.sync();
                }
            }
            Call::Remove { path } => drop(self.files.remove(path)),
            Call::Rename { from, to } => {
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                }
            }
        }
    }

    /// Writes to `to` what is found of the files below `below` after a power cut.
    pub(crate) fn cut(&self, below: &Path, to: &Path, kept: Kept, rng: &mut fastrand::Rng) {
        for (path, file) in &self.files {
            let Ok(name) = path.strip_prefix(below) else {
                continue;
            };
            let to = to.join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, file.found(kept, rng)).unwrap();
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
