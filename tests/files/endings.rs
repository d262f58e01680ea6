//! What the sender keeps of files that have ended.

use outlive::record::Key;
use outlive::{ChannelId, FileEvent, StopReason, Store};
use outlive_core::store::ReadLimit;
use outlive_storage::MemoryStore;
use outlive_transports::MemoryRelay;

use crate::world::{Peer, content, id, pair, receive, receive_some, soon, stopped};

/// How many files its store knows to be on their way to a peer, or not to be quite over.
async fn known(peer: &Peer, to: u8) -> usize {
    let limit = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let rows = peer.store.range(Key::sending_files(id(to)), limit).await;
    rows.expect("rows").len()
}

#[tokio::test]
async fn a_file_of_which_a_receiver_has_lost_the_beginning_fails_and_what_is_behind_it_comes() {
    // Some of the first is on its way yet. Of the others all has come, and nobody has decided about
    // them: the sender finds out that the receiver of one, who had talked before, has another epoch, and
    // hears for the first time what the other's is.
    for (size, talks) in [(9 << 20, false), (1 << 10, true), (1 << 10, false)] {
        let relay = MemoryRelay::new("relay");
        let (alice, mut bob) = pair(&relay).await;
        let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
        let path = alice.put("a", &content(size));
        let sending = to_bob.send_file(path).await.unwrap();
        let mut files = to_alice.files().await.unwrap();
        if talks {
            let line = to_alice.send(ChannelId::MESSAGES, "a line").await.unwrap();
            soon("the line", line.delivered()).await.unwrap();
        }
        if size < 1 << 20 {
            while sending.progress().done < size as u64 {
                let changed = sending.changed(sending.progress());
                soon("the part", changed).await.unwrap();
            }
        } else {
            receive_some(&mut files, bob.disk.path(), 1 << 20).await;
        }
        drop((files, to_alice));
        bob.stop().await;
        let behind = to_bob.send_file(alice.put("b", b"b")).await.unwrap();
        bob.store = MemoryStore::new();
        bob.start().await;
        let mut files = bob.session(1).await.files().await.unwrap();
        let file = receive(&mut files, bob.disk.path()).await;
        assert_eq!(file.info().name, "b");
        soon("the word of it", behind.done()).await.unwrap();
        let reason = soon("its end", async {
            tokio::select! {
                ended = sending.done() => stopped(ended),
                event = files.next() => panic!("{event:?}"),
            }
        });
        assert_eq!(reason.await, StopReason::Failed);
        assert!(to_bob.sending_files().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_file_that_is_declined_when_all_of_it_has_left_is_forgotten() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let sending = to_bob.send_file(alice.put("a", b"content")).await.unwrap();
    while sending.progress().done < 7 {
        let changed = sending.changed(sending.progress());
        soon("the part", changed).await.unwrap();
    }
    let mut files = to_alice.files().await.unwrap();
    assert_eq!(known(&alice, 2).await, 1);
    match soon("an offer", files.next()).await.unwrap() {
        FileEvent::Offered(offer) => offer.decline(),
        other => panic!("{other:?} is no offer"),
    }
    let reason = soon("the word of it", async {
        tokio::select! {
            ended = sending.done() => stopped(ended),
            event = files.next() => panic!("{event:?}"),
        }
    });
    assert_eq!(reason.await, StopReason::Declined);
    assert_eq!(known(&alice, 2).await, 0);
}
