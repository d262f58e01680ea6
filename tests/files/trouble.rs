//! Files that don't arrive, and say why.

use std::path::Path;

use futures_util::FutureExt;
use outlive::record::{Key, ReceivingFileRecord, ReceivingState, Record};
use outlive::{
    ChannelId, FileError, FileEvent, FileInfo, StopReason, Store, StoreError, TransferId,
};
use outlive_core::store::Batch;
use outlive_transports::MemoryRelay;

use crate::world::{content, end, id, pair, receive, receive_some, soon, stopped};

#[tokio::test]
async fn a_file_that_is_declined_is_not_sent_on() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let path = alice.put("a", &content(2 << 20));
    let sending = to_bob.send_file(path).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    match soon("an offer", files.next()).await.unwrap() {
        FileEvent::Offered(offer) => offer.decline(),
        other => panic!("{other:?} is no offer"),
    }
    // What follows is another file: the rest of the first is passed over.
    to_bob.send_file(alice.put("b", b"b")).await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(file.info().name, "b");
    let reason = stopped(soon("the word of it", sending.done()).await);
    assert_eq!(reason, StopReason::Declined);
    assert_eq!(bob.names(), ["b"]);
}

#[tokio::test]
async fn a_file_that_its_sender_calls_off_leaves_nothing_behind() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let mut files = to_alice.files().await.unwrap();
    // None of its parts leaves before that.
    let away = relay.faults().unreachable();
    relay.faults().cut(id(1));
    let path = alice.put("a", &content(50 << 20));
    let sending = to_bob.send_file(path).await.unwrap();
    sending.cancel().await.unwrap();
    let reason = stopped(sending.done().await);
    assert_eq!(reason, StopReason::Cancelled);
    drop(away);
    let ended = end(&mut files, bob.disk.path()).await;
    assert_eq!(ended.unwrap_err(), StopReason::Cancelled);
    assert!(bob.names().is_empty());
    assert!(to_bob.sending_files().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_its_receiver_calls_off_leaves_nothing_behind() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let path = alice.put("a", &content(8 << 20));
    let sending = to_bob.send_file(path).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    receive_some(&mut files, bob.disk.path(), 1 << 20).await;
    assert_eq!(bob.names(), ["a.part"]);
    assert!(files.cancel(sending.transfer()).await.unwrap());
    assert!(!files.cancel(sending.transfer()).await.unwrap());
    let reason = stopped(soon("the word of it", sending.done()).await);
    assert_eq!(reason, StopReason::Cancelled);
    assert!(bob.names().is_empty());
    to_bob.send_file(alice.put("b", b"b")).await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(file.info().name, "b");
}

#[tokio::test]
async fn a_file_that_is_called_off_as_soon_as_it_is_accepted_leaves_nothing_behind() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let path = alice.put("a", &content(2 << 20));
    let sending = to_bob.send_file(path).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    let FileEvent::Offered(mut offer) = soon("an offer", files.next()).await.unwrap() else {
        panic!("no offer");
    };
    assert!(!files.cancel(sending.transfer()).await.unwrap());
    offer.accept(bob.disk.path()).await.unwrap();
    assert!(files.cancel(sending.transfer()).await.unwrap());
    assert!(!files.cancel(sending.transfer()).await.unwrap());
    assert!(bob.names().is_empty());
    to_bob.send_file(alice.put("b", b"b")).await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(file.info().name, "b");
    let reason = stopped(soon("the word of it", sending.done()).await);
    assert_eq!(reason, StopReason::Cancelled);
}

/// Makes a pipe: to open it is to wait for who is at its other end.
fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[tokio::test]
async fn a_file_that_changes_or_vanishes_on_its_way_fails_at_both_ends_and_holds_up_none() {
    const SIZE: usize = 2 << 20;
    enum Change {
        Gone,
        To(Vec<u8>),
        Pipe,
    }
    let other = b"something else".to_vec();
    let changes = [
        Change::Gone,
        Change::To(other),
        Change::To(vec![7; SIZE]),
        Change::Pipe,
    ];
    for change in changes {
        let relay = MemoryRelay::new("relay");
        let (alice, bob) = pair(&relay).await;
        let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
        // Nothing leaves before it has changed.
        let away = relay.faults().unreachable();
        relay.faults().cut(id(1));
        let path = alice.put("a", &content(SIZE));
        let sending = to_bob.send_file(&path).await.unwrap();
        to_bob.send_file(alice.put("b", b"b")).await.unwrap();
        match change {
            Change::Gone => std::fs::remove_file(&path).unwrap(),
            Change::To(content) => std::fs::write(&path, content).unwrap(),
            Change::Pipe => {
                std::fs::remove_file(&path).unwrap();
                pipe(&path);
            }
        }
        drop(away);
        let mut files = to_alice.files().await.unwrap();
        // What was sent behind it comes before the word that it won't.
        let file = receive(&mut files, bob.disk.path()).await;
        assert_eq!(file.info().name, "b");
        let ended = end(&mut files, bob.disk.path()).await;
        assert_eq!(ended.unwrap_err(), StopReason::Changed);
        let reason = stopped(soon("the word of it", sending.done()).await);
        assert_eq!(reason, StopReason::Changed);
        assert_eq!(bob.names(), ["b"]);
    }
}

#[tokio::test]
async fn what_is_no_file_or_is_not_there_is_not_taken_for_sending() {
    let relay = MemoryRelay::new("relay");
    let (alice, _bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    let missing = to_bob.send_file(alice.disk.path().join("missing")).await;
    assert!(matches!(missing, Err(FileError::Io { .. })), "{missing:?}");
    let directory = to_bob.send_file(alice.disk.path()).await;
    assert!(
        matches!(directory, Err(FileError::NotAFile(_))),
        "{directory:?}"
    );
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_an_error_and_the_offer_stands() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    to_bob.send_file(alice.put("a", b"content")).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    let FileEvent::Offered(mut offer) = soon("an offer", files.next()).await.unwrap() else {
        panic!("no offer");
    };
    let refused = offer.accept(bob.disk.path().join("missing")).await;
    assert!(matches!(refused, Err(FileError::Io { .. })), "{refused:?}");
    offer.accept(bob.disk.path()).await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(std::fs::read(file.path()).unwrap(), b"content");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_for_a_while_loses_nothing() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let whole = content(9 << 20);
    to_bob.send_file(alice.put("a", &whole)).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    receive_some(&mut files, bob.disk.path(), 1 << 20).await;
    // A directory in its place can't be written, by root neither.
    let (part, aside) = (bob.part(), bob.disk.path().join("aside"));
    std::fs::rename(&part, &aside).unwrap();
    std::fs::create_dir(&part).unwrap();
    for _ in 0..3 {
        let failed = soon("the failure", files.next()).await;
        assert!(matches!(failed, Err(FileError::Io { .. })), "{failed:?}");
    }
    std::fs::remove_dir(&part).unwrap();
    std::fs::rename(&aside, &part).unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
}

#[tokio::test]
async fn a_file_that_is_whole_and_one_that_comes_under_the_same_name_do_each_other_nothing() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let path = alice.put("a.txt", b"the first");
    let first = to_bob.send_file(&path).await.unwrap().transfer();
    let mut files = to_alice.files().await.unwrap();
    // The app has not committed it when it goes.
    drop(receive(&mut files, bob.disk.path()).await);
    let whole = content(9 << 20);
    to_bob.send_file(alice.put("a.txt", &whole)).await.unwrap();
    receive_some(&mut files, bob.disk.path(), 1 << 20).await;
    drop(files);
    let mut files = to_alice.files().await.unwrap();
    assert!(!files.cancel(first).await.unwrap(), "it is whole");
    let again = receive(&mut files, bob.disk.path()).await;
    assert_eq!(again.transfer(), first);
    assert_eq!(std::fs::read(again.path()).unwrap(), b"the first");
    let second = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(second.path()).unwrap() == whole);
    assert_eq!(bob.names(), ["a (2).txt", "a.txt"]);
}

/// A disk of a few MiB, if we may have one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", size, "tmpfs"])
            .arg(at.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(at)),
            failed => {
                let required = std::env::var_os("OUTLIVE_LAB").is_some_and(|is| is == "required");
                assert!(!required, "a small disk can't be mounted: {failed:?}");
                println!("SKIPPED: a small disk can't be mounted: {failed:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_of_the_file_alone_and_the_file_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount("size=4m") else {
        return;
    };
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let filler = disk.0.path().join("filler");
    std::fs::write(&filler, content(2 << 20)).unwrap();
    let whole = content(7 << 19);
    let sending = to_bob.send_file(alice.put("a", &whole)).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    let full = loop {
        match soon("the full disk", files.next()).await {
            Ok(FileEvent::Offered(mut offer)) => offer.accept(disk.0.path()).await.unwrap(),
            Ok(FileEvent::Progress(..)) => {}
            other => break other.unwrap_err(),
        }
    };
    let FileError::Io { error, .. } = &full else {
        panic!("{full}");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    // Everything else goes on.
    let mut chat = to_alice.inbox(ChannelId::MESSAGES).unwrap();
    to_bob.send(ChannelId::MESSAGES, "a line").await.unwrap();
    let line = soon("a line", chat.next()).await.unwrap();
    line.commit().await.unwrap();
    std::fs::remove_file(&filler).unwrap();
    let file = receive(&mut files, disk.0.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
    soon("the word of it", sending.done()).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_taken_away_while_it_comes_fails_at_both_ends_and_holds_up_none() {
    for restarts in [false, true] {
        let relay = MemoryRelay::new("relay");
        let (alice, mut bob) = pair(&relay).await;
        let to_bob = alice.session(2).await;
        let path = alice.put("a", &content(9 << 20));
        let sending = to_bob.send_file(path).await.unwrap();
        to_bob.send_file(alice.put("b", b"b")).await.unwrap();
        let mut files = bob.session(1).await.files().await.unwrap();
        receive_some(&mut files, bob.disk.path(), 1 << 20).await;
        std::fs::remove_file(bob.part()).unwrap();
        if restarts {
            drop(files);
            bob.crash().await;
            files = bob.session(1).await.files().await.unwrap();
        }
        let ended = end(&mut files, bob.disk.path()).await;
        assert_eq!(ended.unwrap_err(), StopReason::Failed);
        let reason = stopped(soon("the word of it", sending.done()).await);
        assert_eq!(reason, StopReason::Failed);
        let file = receive(&mut files, bob.disk.path()).await;
        assert_eq!(file.info().name, "b");
    }
}

#[tokio::test]
async fn a_pipe_in_the_place_of_what_came_is_an_error_and_not_waited_for() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let path = alice.put("a", &content(9 << 20));
    let sending = alice.session(2).await.send_file(path).await.unwrap();
    let mut files = bob.session(1).await.files().await.unwrap();
    receive_some(&mut files, bob.disk.path(), 1 << 20).await;
    let part = bob.part();
    std::fs::remove_file(&part).unwrap();
    pipe(&part);
    let failed = loop {
        match soon("the error", files.next()).await {
            Ok(FileEvent::Progress(..)) => {}
            other => break other,
        }
    };
    assert!(matches!(failed, Err(FileError::Io { .. })), "{failed:?}");
    std::fs::remove_file(&part).unwrap();
    let ended = end(&mut files, bob.disk.path()).await;
    assert_eq!(ended.unwrap_err(), StopReason::Failed);
    let reason = stopped(soon("the word of it", sending.done()).await);
    assert_eq!(reason, StopReason::Failed);
}

#[tokio::test]
async fn a_file_that_is_taken_away_before_it_has_its_name_is_not_told_as_received() {
    for restarts in [false, true] {
        let relay = MemoryRelay::new("relay");
        let (alice, mut bob) = pair(&relay).await;
        let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
        let sending = to_bob.send_file(alice.put("a", b"content")).await.unwrap();
        let mut files = to_alice.files().await.unwrap();
        receive_some(&mut files, bob.disk.path(), 0).await;
        while sending.progress().done < 7 {
            let changed = sending.changed(sending.progress());
            soon("the part", changed).await.unwrap();
        }
        // Its name is chosen, and that can't be written down yet.
        let held = bob.store.faults().hold();
        while bob.store.faults().counts().waiting == 0 {
            assert!(files.next().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        std::fs::remove_file(bob.part()).unwrap();
        drop(held);
        let failed = soon("the failure", files.next()).await;
        assert!(matches!(failed, Err(FileError::Io { .. })), "{failed:?}");
        if restarts {
            drop((files, to_alice));
            bob.crash().await;
            files = bob.session(1).await.files().await.unwrap();
        }
        let ended = end(&mut files, bob.disk.path()).await;
        assert_eq!(ended.unwrap_err(), StopReason::Failed);
        assert!(bob.names().is_empty());
        let reason = stopped(soon("the word of it", sending.done()).await);
        assert_eq!(reason, StopReason::Failed);
    }
}

#[tokio::test]
async fn a_store_that_fails_at_the_end_of_a_file_keeps_neither_side_from_hearing_of_it() {
    let mut failed = 0;
    for before in 0..8 {
        let relay = MemoryRelay::new("relay");
        let (alice, bob) = pair(&relay).await;
        let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
        let sending = to_bob.send_file(alice.put("a", b"content")).await.unwrap();
        let mut files = to_alice.files().await.unwrap();
        let FileEvent::Offered(mut offer) = soon("an offer", files.next()).await.unwrap() else {
            panic!("no offer");
        };
        offer.accept(bob.disk.path()).await.unwrap();
        // Each time another one fails of those that follow.
        let faults = bob.store.faults();
        let mut failing = Some(faults.counts().commits + before);
        let told = async {
            loop {
                let event = files.next().now_or_never();
                if failing
                    .take_if(|at| faults.counts().commits >= *at)
                    .is_some()
                {
                    faults.fail_commits(1, &StoreError::Full);
                }
                match event {
                    Some(Ok(FileEvent::Received(file))) => break file,
                    Some(Ok(FileEvent::Progress(..)) | Err(FileError::Session(_))) => {}
                    Some(other) => panic!("{other:?}"),
                    None => tokio::task::yield_now().await,
                }
            }
        };
        let file = soon("the file", told).await;
        failed += usize::from(failing.is_none());
        assert_eq!(std::fs::read(file.path()).unwrap(), b"content");
        assert_eq!(bob.names(), ["a"]);
        soon("the word of it", sending.done()).await.unwrap();
        // What of it was not committed comes again before the next one, and is no other file.
        if let Err(error) = file.commit().await {
            assert!(matches!(error, FileError::Session(_)), "{error:?}");
        }
        to_bob.send_file(alice.put("b", b"b")).await.unwrap();
        let next = async {
            loop {
                match files.next().await {
                    Ok(FileEvent::Offered(offer)) => break offer,
                    Err(FileError::Session(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        let next = soon("the next offer", next).await;
        assert_eq!(next.name(), "b", "with {before} commits before it");
    }
    // Less, and there are fewer to fail than this goes through.
    assert!(failed >= 5, "only {failed} commits failed");
}

#[tokio::test]
async fn an_offer_whose_acceptance_is_given_up_half_way_is_declined_and_leaves_nothing_behind() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let sending = to_bob.send_file(alice.put("a", b"content")).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    let FileEvent::Offered(mut offer) = soon("an offer", files.next()).await.unwrap() else {
        panic!("no offer");
    };
    let held = bob.store.faults().hold();
    let waiting = bob.store.faults().counts().waiting;
    let accepting = async {
        tokio::select! {
            accepted = offer.accept(bob.disk.path()) => panic!("{accepted:?}"),
            () = async {
                while bob.store.faults().counts().waiting == waiting {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
    };
    soon("its record", accepting).await;
    let decided = soon("an answer", offer.accept(bob.disk.path())).await;
    assert!(matches!(decided, Err(FileError::Decided)), "{decided:?}");
    offer.decline();
    drop(held);
    to_bob.send_file(alice.put("b", b"b")).await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(file.info().name, "b");
    let reason = stopped(soon("the word of it", sending.done()).await);
    assert_eq!(reason, StopReason::Declined);
    assert_eq!(bob.names(), ["b"]);
    assert!(!files.cancel(sending.transfer()).await.unwrap());
    drop(files);
    let mut files = to_alice.files().await.unwrap();
    assert!(!files.cancel(sending.transfer()).await.unwrap());
}

#[tokio::test]
async fn an_app_that_never_commits_what_it_received_is_sent_no_more_in_the_end() {
    const MOST: u32 = 1_024;
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let store = bob.stopped().await;
    let mut batch = Batch::new();
    for n in 0..MOST {
        let record = ReceivingFileRecord {
            info: FileInfo {
                name: "old".to_owned(),
                size: 1,
                hash: [0; 32],
            },
            directory: "/nowhere".to_owned(),
            part: format!("/nowhere/{n}.part"),
            state: ReceivingState::Received(format!("/nowhere/{n}")),
        };
        let transfer = TransferId(u128::from(n).to_be_bytes());
        batch.put(
            Key::ReceivingFile(id(1), transfer).to_bytes(),
            record.to_bytes(),
        );
    }
    store.commit(batch).await.unwrap();
    bob.start().await;
    let to_bob = alice.session(2).await;
    let mut files = bob.session(1).await.files().await.unwrap();
    let mut first = None;
    for _ in 0..MOST {
        match soon("an old one", files.next()).await.unwrap() {
            FileEvent::Received(file) => first = first.or(Some(file)),
            other => panic!("{other:?}"),
        }
    }
    let one_more = to_bob.send_file(alice.put("a", b"a")).await.unwrap();
    let (reason, event) = tokio::join!(soon("the word of it", one_more.done()), async {
        tokio::select! {
            event = files.next() => Some(event),
            _ = one_more.done() => None,
        }
    });
    assert!(event.is_none(), "{event:?}");
    assert_eq!(stopped(reason), StopReason::Failed);
    first.expect("at least one").commit().await.unwrap();
    to_bob.send_file(alice.put("b", b"b")).await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(file.info().name, "b");
}
