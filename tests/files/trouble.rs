//! Files that don't arrive, and say why.

use futures_util::FutureExt;
use outlive::record::{Key, ReceivingFileRecord, ReceivingState, Record};
use outlive::{FileError, FileEvent, FileInfo, StopReason, Store, StoreError, TransferId};
use outlive_core::store::Batch;
use outlive_transports::MemoryRelay;

use crate::world::{content, end, id, pair, pipe, receive, receive_some, soon, stopped};

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
    let accepting = async {
        tokio::select! {
            accepted = offer.accept(bob.disk.path()) => panic!("{accepted:?}"),
            () = async {
                while !bob.is_writing(1, sending.transfer()) {
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
