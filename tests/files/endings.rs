//! What the sender keeps of files that have ended.

use outlive::{ChannelId, StopReason};
use outlive_storage::MemoryStore;
use outlive_transports::MemoryRelay;

use crate::world::{content, pair, receive, receive_some, soon, stopped};

#[tokio::test]
async fn a_file_of_which_a_receiver_has_lost_the_beginning_fails_and_what_is_behind_it_comes() {
    // Some of the first is on its way yet. Of the second all has come, and nobody has decided about it;
    // but the receiver has talked before, so that its sender finds out and asks.
    for (size, talks) in [(9 << 20, false), (1 << 10, true)] {
        let relay = MemoryRelay::new("relay");
        let (alice, mut bob) = pair(&relay).await;
        let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
        let path = alice.put("a", &content(size));
        let sending = to_bob.send_file(path).await.unwrap();
        let mut files = to_alice.files().await.unwrap();
        if talks {
            let line = to_alice.send(ChannelId::MESSAGES, "a line").await.unwrap();
            soon("the line", line.delivered()).await.unwrap();
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
