//! Files that don't arrive, and say why.

use outlive::{FileError, FileEvent, StopReason};
use outlive_transports::MemoryRelay;

use crate::world::{content, end, id, pair, receive, receive_some, soon};

fn stopped(result: Result<(), FileError>) -> StopReason {
    match result {
        Err(FileError::Stopped(reason)) => reason,
        other => panic!("{other:?} is no stop"),
    }
}

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
async fn a_file_that_changes_or_vanishes_on_its_way_fails_at_both_ends_and_holds_up_none() {
    for vanishes in [true, false] {
        let relay = MemoryRelay::new("relay");
        let (alice, bob) = pair(&relay).await;
        let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
        // Nothing leaves before it has changed.
        let away = relay.faults().unreachable();
        relay.faults().cut(id(1));
        let path = alice.put("a", &content(2 << 20));
        let sending = to_bob.send_file(&path).await.unwrap();
        to_bob.send_file(alice.put("b", b"b")).await.unwrap();
        if vanishes {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::write(&path, b"something else").unwrap();
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
    let whole = content(3 << 20);
    to_bob.send_file(alice.put("a", &whole)).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    receive_some(&mut files, bob.disk.path(), 1 << 20).await;
    // A directory in its place can't be written, by root neither.
    let (part, aside) = (
        bob.disk.path().join("a.part"),
        bob.disk.path().join("aside"),
    );
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
