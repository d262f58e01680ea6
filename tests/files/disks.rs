//! A receiver's disk that is full, can't be written, or from which what came is taken away.

use futures_util::FutureExt;
use outlive::{ChannelId, FileError, FileEvent, StopReason};
use outlive_testing::SmallDisk;
use outlive_transports::MemoryRelay;

use crate::world::{content, end, pair, pipe, receive, receive_some, soon, stopped};

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
async fn a_full_disk_is_an_error_of_the_file_alone_and_the_file_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(4) else {
        return;
    };
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let filler = disk.path().join("filler");
    std::fs::write(&filler, content(2 << 20)).unwrap();
    let whole = content(7 << 19);
    let sending = to_bob.send_file(alice.put("a", &whole)).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    let full = loop {
        match soon("the full disk", files.next()).await {
            Ok(FileEvent::Offered(mut offer)) => offer.accept(disk.path()).await.unwrap(),
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
    let file = receive(&mut files, disk.path()).await;
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
        let naming = async {
            while !bob.is_writing(1, sending.transfer()) {
                assert!(files.next().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
        };
        soon("its name", naming).await;
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

#[cfg(unix)]
#[tokio::test]
async fn a_file_whose_directory_can_not_be_looked_at_when_it_is_taken_goes_on_when_it_can() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let (into, aside) = (bob.disk.path().join("into"), bob.disk.path().join("aside"));
    std::fs::create_dir(&into).unwrap();
    let whole = content(9 << 20);
    let path = alice.put("a", &whole);
    let sending = alice.session(2).await.send_file(path).await.unwrap();
    let mut files = bob.session(1).await.files().await.unwrap();
    receive_some(&mut files, &into, 1 << 20).await;
    drop(files);
    bob.crash().await;
    // A link to itself leads nowhere, for root neither.
    std::fs::rename(&into, &aside).unwrap();
    std::os::unix::fs::symlink(&into, &into).unwrap();
    let mut files = bob.session(1).await.files().await.unwrap();
    for _ in 0..3 {
        let failed = soon("the failure", files.next()).await;
        assert!(matches!(failed, Err(FileError::Io { .. })), "{failed:?}");
    }
    std::fs::remove_file(&into).unwrap();
    std::fs::rename(&aside, &into).unwrap();
    let file = receive(&mut files, &into).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
    soon("the word of it", sending.done()).await.unwrap();
}
