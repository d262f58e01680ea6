//! The name that a file gets when it is whole, and what others put there.

use std::path::Path;

use futures_util::FutureExt;
use outlive::{FileError, FileEvent, FileInbox, SendingFile, StopReason};
use outlive_storage::Hold;
use outlive_transports::MemoryRelay;

use crate::world::{Peer, end, pair, receive, receive_some, soon, stopped};

/// Sends a file of which all has come, and is not taken yet.
async fn whole(alice: &Peer, bob: &Peer, into: &Path) -> (SendingFile, FileInbox) {
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let sent = to_bob.send_file(alice.put("a", b"content")).await;
    let sending = sent.expect("it is taken");
    let mut files = to_alice.files().await.expect("nobody has it");
    receive_some(&mut files, into, 0).await;
    while sending.progress().done < 7 {
        let changed = sending.changed(sending.progress());
        soon("the part", changed).await.expect("it comes");
    }
    (sending, files)
}

/// Goes on until what becomes of a file is to be written down.
async fn naming(files: &mut FileInbox, bob: &Peer, sending: &SendingFile) {
    while !bob.is_writing(1, sending.transfer()) {
        assert!(files.next().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
}

/// Sends a file of which all has come, and whose name is chosen but can't be written down yet.
async fn named(alice: &Peer, bob: &Peer) -> (SendingFile, FileInbox, Hold) {
    let (sending, mut files) = whole(alice, bob, bob.disk.path()).await;
    let held = bob.store.faults().hold();
    soon("its name", naming(&mut files, bob, &sending)).await;
    (sending, files, held)
}

#[tokio::test]
async fn what_is_put_where_a_file_goes_stays_there_and_the_file_takes_another_name() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (sending, mut files, held) = named(&alice, &bob).await;
    let theirs = bob.put("a", b"mine");
    drop(held);
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(std::fs::read(file.path()).unwrap(), b"content");
    assert_eq!(std::fs::read(theirs).unwrap(), b"mine");
    assert_eq!(bob.names(), ["a", "a (2)"]);
    soon("the word of it", sending.done()).await.unwrap();
}

#[tokio::test]
async fn what_is_put_where_a_file_was_to_go_is_not_told_as_that_file() {
    for restarts in [false, true] {
        let relay = MemoryRelay::new("relay");
        let (alice, mut bob) = pair(&relay).await;
        let (sending, mut files, held) = named(&alice, &bob).await;
        std::fs::remove_file(bob.part()).unwrap();
        drop(held);
        let failed = soon("the failure", files.next()).await;
        assert!(matches!(failed, Err(FileError::Io { .. })), "{failed:?}");
        let theirs = bob.put("a", b"mine");
        if restarts {
            drop(files);
            bob.crash().await;
            files = bob.session(1).await.files().await.unwrap();
        }
        let ended = end(&mut files, bob.disk.path()).await;
        assert_eq!(ended.unwrap_err(), StopReason::Failed);
        assert_eq!(std::fs::read(theirs).unwrap(), b"mine");
        assert_eq!(bob.names(), ["a"]);
        let reason = stopped(soon("the word of it", sending.done()).await);
        assert_eq!(reason, StopReason::Failed);
    }
}

#[tokio::test]
async fn a_process_that_ends_as_a_file_gets_its_name_leaves_nothing_but_that_file() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let (sending, files, held) = named(&alice, &bob).await;
    drop(files);
    bob.crash().await;
    drop(held);
    let mut files = bob.session(1).await.files().await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(std::fs::read(file.path()).unwrap(), b"content");
    assert_eq!(bob.names(), ["a"]);
    soon("the word of it", sending.done()).await.unwrap();
}

#[tokio::test]
async fn a_process_that_ends_as_a_file_is_accepted_leaves_nothing_but_that_file() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    let sending = to_bob.send_file(alice.put("a", b"content")).await.unwrap();
    let mut files = bob.session(1).await.files().await.unwrap();
    let FileEvent::Offered(mut offer) = soon("an offer", files.next()).await.unwrap() else {
        panic!("no offer");
    };
    let faults = bob.store.faults();
    let _held = faults.hold();
    let into = bob.disk.path().to_owned();
    let accepting = async {
        tokio::select! {
            accepted = offer.accept(into) => panic!("{accepted:?}"),
            () = async {
                while !bob.is_writing(1, sending.transfer()) {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
    };
    soon("its record", accepting).await;
    // A process that is killed has no time to tidy up.
    let left = bob.part();
    drop((offer, files));
    bob.crash().await;
    std::fs::write(&left, b"").unwrap();
    let mut files = bob.session(1).await.files().await.unwrap();
    receive(&mut files, bob.disk.path()).await;
    assert_eq!(bob.names(), ["a"]);
    soon("the word of it", sending.done()).await.unwrap();
}

#[tokio::test]
async fn what_is_done_with_a_file_before_the_app_knows_of_it_changes_nothing() {
    let edit: fn(&Path) = |path| std::fs::write(path, b"content, and more").unwrap();
    let move_away: fn(&Path) = |path| std::fs::rename(path, path.with_file_name("b")).unwrap();
    let remove: fn(&Path) = |path| std::fs::remove_file(path).unwrap();
    for change in [edit, move_away, remove] {
        let relay = MemoryRelay::new("relay");
        let (alice, mut bob) = pair(&relay).await;
        let to_bob = alice.session(2).await;
        let sending = to_bob.send_file(alice.put("a", b"content")).await.unwrap();
        let mut files = bob.session(1).await.files().await.unwrap();
        let path = receive(&mut files, bob.disk.path()).await.path().to_owned();
        drop(files);
        bob.crash().await;
        change(&path);
        let mut files = bob.session(1).await.files().await.unwrap();
        let file = receive(&mut files, bob.disk.path()).await;
        assert_eq!(file.path(), path);
        file.commit().await.unwrap();
        soon("the word of it", sending.done()).await.unwrap();
    }
}

/// Has a file renamed, which is not written down yet.
async fn renamed(files: &mut FileInbox, bob: &Peer, sending: &SendingFile, path: &Path) -> Hold {
    let faults = bob.store.faults();
    let mut held = faults.hold();
    let renaming = async {
        while !path.exists() {
            assert!(files.next().now_or_never().is_none());
            if faults.counts().waiting > 0 {
                drop(held);
                held = faults.hold();
            }
            tokio::task::yield_now().await;
        }
        naming(files, bob, sending).await;
        held
    };
    soon("its name", renaming).await
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_can_not_be_looked_at_after_its_process_ended_holds_up_no_other() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    let (into, aside) = (bob.disk.path().join("into"), bob.disk.path().join("aside"));
    std::fs::create_dir(&into).unwrap();
    let (sending, mut files) = whole(&alice, &bob, &into).await;
    let held = renamed(&mut files, &bob, &sending, &into.join("a")).await;
    drop(files);
    bob.crash().await;
    drop(held);
    // A link to itself leads nowhere, for root neither.
    std::fs::rename(&into, &aside).unwrap();
    std::os::unix::fs::symlink(&into, &into).unwrap();
    to_bob.send_file(alice.put("b", b"other")).await.unwrap();
    let mut files = bob.session(1).await.files().await.unwrap();
    let failed = soon("the error", files.next()).await;
    assert!(matches!(failed, Err(FileError::Io { .. })), "{failed:?}");
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(std::fs::read(file.path()).unwrap(), b"other");
    file.commit().await.unwrap();
    drop(files);
    std::fs::remove_file(&into).unwrap();
    std::fs::rename(&aside, &into).unwrap();
    let mut files = bob.session(1).await.files().await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(file.path(), into.join("a"));
    soon("the word of it", sending.done()).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_edited_before_it_is_written_down_that_it_has_its_name_was_received() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (sending, mut files) = whole(&alice, &bob, bob.disk.path()).await;
    let path = bob.disk.path().join("a");
    let held = renamed(&mut files, &bob, &sending, &path).await;
    std::fs::write(&path, b"content, and more").unwrap();
    bob.fail_write(1, sending.transfer());
    drop(held);
    let failed = soon("the failure", files.next()).await;
    assert!(matches!(failed, Err(FileError::Session(_))), "{failed:?}");
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(file.path(), path);
    soon("the word of it", sending.done()).await.unwrap();
}
