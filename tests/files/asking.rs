//! Files of which all has come, of a receiver that may have lost its state since.

use outlive::record::{self, Key, Record};
use outlive::{ChannelId, Epoch, PeerId, SendingFile, Session, SessionEvent, StopReason, Store};
use outlive_core::store::Batch;
use outlive_storage::MemoryStore;
use outlive_transports::{MemoryRelay, Way};
use tokio::sync::watch;

use crate::world::{Peer, fill_outbox, id, pair, receive, soon, stopped};

/// Has a file come, about which nobody decides, from a peer that has heard ours.
async fn undecided(to_bob: &Session, alice: &Peer, bob: &Peer) -> SendingFile {
    let to_alice = bob.session(1).await;
    let sent = to_bob.send_file(alice.put("a", b"content")).await;
    let sending = sent.expect("it is taken");
    say(&to_alice).await;
    while sending.progress().done < 7 {
        let changed = sending.changed(sending.progress());
        soon("the part", changed).await.expect("it comes");
    }
    sending
}

async fn say(session: &Session) {
    let line = session.send(ChannelId::MESSAGES, "a line").await;
    let delivered = line.expect("it is taken");
    soon("the line", delivered.delivered())
        .await
        .expect("it comes");
}

/// Tells when the peer of a session has another epoch.
fn resets(session: &Session) -> (watch::Receiver<bool>, outlive::Subscription) {
    let (heard, reset) = watch::channel(false);
    let on_event = session.on_event(move |event, _| {
        if matches!(event, SessionEvent::PeerReset { .. }) {
            heard.send_replace(true);
        }
    });
    (reset, on_event)
}

async fn session(store: &MemoryStore, with: PeerId) -> record::Session {
    let stored = store.get(Key::Session(with).to_bytes()).await;
    let stored = stored.expect("it works").expect("the session");
    record::Session::from_bytes(&stored).expect("a record")
}

/// Has a peer draw a new epoch, as it does when its store went back in time.
async fn renew(bob: &mut Peer) {
    let store = bob.stopped().await;
    let mut session = session(store, id(1)).await;
    session.epoch = Epoch(session.epoch.0 ^ 1);
    let mut batch = Batch::new();
    batch.put(Key::Session(id(1)).to_bytes(), session.to_bytes());
    store.commit(batch).await.expect("it works");
    bob.start().await;
}

#[tokio::test]
async fn a_file_waits_for_room_to_ask_a_receiver_with_a_new_epoch_about_it() {
    for crashes in [false, true] {
        let relay = MemoryRelay::new("relay");
        let (mut alice, mut bob) = pair(&relay).await;
        drop(undecided(&alice.session(2).await, &alice, &bob).await);
        let away = fill_outbox(&relay, &mut alice, None).await;
        let to_bob = alice.session(2).await;
        let (mut reset, _on_event) = resets(&to_bob);
        let deaf = relay.faults().hold(id(2), Way::FromRelay);
        renew(&mut bob).await;
        let to_alice = bob.session(1).await;
        drop(away);
        let line = to_alice.send(ChannelId::MESSAGES, "a line").await.unwrap();
        soon("the new epoch", reset.wait_for(|heard| *heard))
            .await
            .unwrap();
        drop((line, to_bob));
        if crashes {
            alice.crash().await;
        }
        let to_bob = alice.session(2).await;
        let sending = to_bob.sending_files().await.unwrap();
        let [sending] = &sending[..] else {
            panic!("{sending:?} is not one file");
        };
        drop(deaf);
        let mut files = to_alice.files().await.unwrap();
        let file = receive(&mut files, bob.disk.path()).await;
        assert_eq!(std::fs::read(file.path()).unwrap(), b"content");
        soon("the word of it", sending.done()).await.unwrap();
    }
}

/// How many epochs of its peer a session has heard of, as its store says.
async fn epochs_heard(store: &MemoryStore) -> usize {
    session(store, id(2)).await.streams.len()
}

#[tokio::test]
async fn a_receiver_that_lost_its_state_is_asked_though_the_sender_ends_as_it_hears_of_it() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, mut bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    drop(undecided(&to_bob, &alice, &bob).await);
    bob.stop().await;
    bob.store = MemoryStore::new();
    bob.start().await;
    let faults = alice.store.faults();
    let mut held = faults.hold();
    let to_alice = bob.session(1).await;
    drop(to_alice.send(ChannelId::MESSAGES, "a line").await.unwrap());
    let heard = async {
        while epochs_heard(&alice.store).await < 2 {
            if faults.counts().waiting > 0 {
                // One write after the other, so that the one that follows from this is not made.
                drop(held);
                held = faults.hold();
            } else {
                tokio::task::yield_now().await;
            }
        }
    };
    soon("the new epoch", heard).await;
    drop(to_bob);
    alice.crash().await;
    let to_bob = alice.session(2).await;
    let sending = to_bob.sending_files().await.unwrap();
    let [sending] = &sending[..] else {
        panic!("{sending:?} is not one file");
    };
    let mut files = to_alice.files().await.unwrap();
    let reason = soon("its end", async {
        tokio::select! {
            ended = sending.done() => stopped(ended),
            event = files.next() => panic!("{event:?}"),
        }
    });
    assert_eq!(reason.await, StopReason::Failed);
}
