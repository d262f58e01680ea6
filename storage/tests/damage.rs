//! Files that were cut, changed, taken away, or written by somebody else.
#![cfg(feature = "sled")]

#[path = "support/directory.rs"]
mod directory;
mod support;

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use outlive_core::store::{Store, StoreError};
use outlive_storage::{FORMAT_VERSION, SledOptions, SledStore};

use directory::copy;
use support::{found, number, numbered};

const HEADER: &str = "outlive-store";

/// sled's file in the first log of a store.
const LOG: &str = "log-0/db";

async fn filled(dir: &Path, batches: u64) {
    let store = SledStore::open(dir).unwrap();
    for at in 0..batches {
        store.commit(numbered(at, 1000)).await.unwrap();
    }
    store.close().await.unwrap();
}

/// What became of a store whose files were changed behind its back.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    Refused,
    RefusedOnRead,
}

/// Opens and reads a store; whatever it gives out must be what was written.
async fn fate(dir: &Path, batches: u64) -> Fate {
    let store = match SledStore::open(dir) {
        Ok(store) => store,
        Err(StoreError::Damaged { .. } | StoreError::FutureVersion { .. }) => return Fate::Refused,
        Err(other) => panic!("not told to be damaged: {other}"),
    };
    let mut whole = Fate::Whole;
    for at in 0..batches {
        for half in [0, 1 << 63] {
            match store.get(number(at | half)).await {
                Ok(Some(value)) => assert_eq!(value, vec![at.to_be_bytes()[7]; 1000]),
                Ok(None) => panic!("batch {at} is missing, and nobody noticed"),
                Err(StoreError::Damaged { .. }) => whole = Fate::RefusedOnRead,
                Err(other) => panic!("not told to be damaged: {other}"),
            }
        }
    }
    whole
}

/// The files of a store, as paths inside its directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.metadata().unwrap().is_file() {
            files.push(entry.file_name().into());
        } else if entry.file_name().to_string_lossy().starts_with("log-") {
            let log = fs::read_dir(entry.path()).unwrap().map(Result::unwrap);
            let inside = log.filter(|file| file.metadata().unwrap().is_file());
            files.extend(inside.map(|file| Path::new(&entry.file_name()).join(file.file_name())));
        }
    }
    files
}

fn flip(file: &Path, at: u64) {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

#[tokio::test]
async fn a_store_that_was_killed_while_it_was_made_can_be_opened() {
    let made = tempfile::tempdir().unwrap();
    SledStore::open(made.path()).unwrap().close().await.unwrap();
    let configuration = "log-0/conf";
    let whole = fs::read(made.path().join(configuration)).unwrap();
    for len in 0..=whole.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(made.path().join(HEADER), dir.path().join(HEADER)).unwrap();
        fs::create_dir(dir.path().join("log-0")).unwrap();
        fs::write(dir.path().join(configuration), &whole[..len]).unwrap();
        fs::write(dir.path().join(LOG), []).unwrap();
        filled(dir.path(), 1).await;
        assert_eq!(fate(dir.path(), 1).await, Fate::Whole, "{len} bytes of it");
    }
}

#[tokio::test]
async fn a_log_cut_anywhere_is_damaged_never_shorter_in_silence() {
    let good = tempfile::tempdir().unwrap();
    filled(good.path(), 300).await;
    let len = fs::metadata(good.path().join(LOG)).unwrap().len();
    for part in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        copy(good.path(), dir.path());
        let file = OpenOptions::new()
            .write(true)
            .open(dir.path().join(LOG))
            .unwrap();
        file.set_len(len * part / 12).unwrap();
        let fate = fate(dir.path(), 300).await;
        println!("cut at {part}/12: {fate:?}");
        assert_ne!(fate, Fate::Whole);
    }
}

#[tokio::test]
async fn a_changed_byte_never_gives_wrong_data_or_a_panic() {
    // Enough for several segments.
    const BATCHES: u64 = 2000;
    let good = tempfile::tempdir().unwrap();
    filled(good.path(), BATCHES).await;
    // Opened once more, so that there is a snapshot that covers what is behind it.
    drop(SledStore::open(good.path()).unwrap());
    let mut fates = Vec::new();
    for file in files(good.path()) {
        let len = fs::metadata(good.path().join(&file)).unwrap().len();
        for part in 0..24 {
            // The journal of a store that was closed is empty.
            let Some(last) = len.checked_sub(1) else {
                break;
            };
            let at = last * part / 23;
            let dir = tempfile::tempdir().unwrap();
            copy(good.path(), dir.path());
            flip(&dir.path().join(&file), at);
            let fate = fate(dir.path(), BATCHES).await;
            fates.push((file.clone(), at, fate));
        }
    }
    for (file, at, fate) in &fates {
        println!("{} at {at}: {fate:?}", file.display());
    }
    assert!(fates.iter().any(|(.., fate)| *fate != Fate::Whole));
}

#[tokio::test]
async fn files_cut_short_or_gone_lose_nothing_in_silence() {
    let good = tempfile::tempdir().unwrap();
    filled(good.path(), 50).await;
    drop(SledStore::open(good.path()).unwrap());
    for name in files(good.path()) {
        for gone in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            copy(good.path(), dir.path());
            let file = dir.path().join(&name);
            if gone {
                fs::remove_file(&file).unwrap();
            } else {
                let len = fs::metadata(&file).unwrap().len();
                OpenOptions::new()
                    .write(true)
                    .open(&file)
                    .unwrap()
                    .set_len(len / 2)
                    .unwrap();
            }
            let fate = fate(dir.path(), 50).await;
            println!("{} gone {gone}: {fate:?}", name.display());
            assert!(name != Path::new(HEADER) || fate == Fate::Refused);
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_was_never_finished_is_no_damage() {
    for part in [&b""[..], b"a part of one, longer than its checksum"] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 50).await;
        let unfinished = dir.path().join("log-0/snap.FFFFFFFFFFFFFFFF.generating");
        fs::write(&unfinished, part).unwrap();
        assert_eq!(fate(dir.path(), 50).await, Fate::Whole);
        assert!(!unfinished.exists());
    }
}

#[tokio::test]
async fn a_snapshot_that_is_whole_gets_its_name() {
    let dir = tempfile::tempdir().unwrap();
    // sled makes one when it finds a log.
    for _ in 0..2 {
        filled(dir.path(), 50).await;
    }
    let log = dir.path().join("log-0");
    let snapshots = || {
        let names = fs::read_dir(&log)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        names.filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("snap.")
        })
    };
    let named = snapshots().next().expect("a snapshot");
    let content = fs::read(&named).unwrap();
    let generating = named.with_file_name(format!(
        "{}.generating",
        named.file_name().unwrap().to_string_lossy()
    ));
    fs::rename(&named, &generating).unwrap();
    fs::write(log.join("snap.FFFFFFFFFFFFFFFF.in___motion"), &content).unwrap();
    assert_eq!(fate(dir.path(), 50).await, Fate::Whole);
    let left: Vec<_> = snapshots().collect();
    assert!(!generating.exists() && left.len() == 1, "{left:?}");
}

#[tokio::test]
async fn salvage_opens_what_is_left_of_a_cut_log() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 300).await;
    let log = OpenOptions::new()
        .write(true)
        .open(dir.path().join(LOG))
        .unwrap();
    log.set_len(log.metadata().unwrap().len() / 2).unwrap();
    assert!(matches!(
        SledStore::open(dir.path()),
        Err(StoreError::Damaged { .. })
    ));
    let store = SledOptions::new(dir.path()).salvage(true).open().unwrap();
    let left = found(&store).await;
    assert!(
        left.len() < 300 && left.iter().copied().eq(0..left.len() as u64),
        "a prefix"
    );
    store
        .commit(numbered(left.len() as u64, 1000))
        .await
        .unwrap();
    store.close().await.unwrap();
    assert_eq!(
        found(&SledStore::open(dir.path()).unwrap()).await.len(),
        left.len() + 1
    );
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3).await;
    let header = dir.path().join(HEADER);
    let mut bytes = fs::read(&header).unwrap();
    bytes[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    fs::write(&header, &bytes).unwrap();
    let error = SledStore::open(dir.path()).unwrap_err();
    let newer = FORMAT_VERSION + 1;
    assert!(
        matches!(error, StoreError::FutureVersion { found, known: FORMAT_VERSION } if found == newer)
    );
    assert_eq!(fs::read(&header).unwrap(), bytes);
}

#[test]
fn a_directory_of_another_program_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let db = sled::open(dir.path()).unwrap();
    db.insert("theirs", "kept").unwrap();
    drop(db);
    assert!(matches!(
        SledStore::open(dir.path()),
        Err(StoreError::Damaged { .. })
    ));
    assert!(!dir.path().join(HEADER).exists());
    assert_eq!(
        sled::open(dir.path())
            .unwrap()
            .get("theirs")
            .unwrap()
            .unwrap(),
        "kept"
    );
}
