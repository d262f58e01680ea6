//! Files of which all has come, of a receiver that may have lost its state since.

use outlive::record::{self, Key, OutboxRecord, Record};
use outlive::{
    ChannelId, Epoch, FileInbox, PeerId, Position, SendingFile, Session, SessionEvent, StopReason,
    Store, StoreTime,
};
use outlive_core::store::{Batch, ReadLimit};
use outlive_storage::MemoryStore;
use outlive_testing::comes;
use outlive_transports::{MemoryRelay, Way};
use tokio::sync::watch;

use crate::world::{Peer, fill_outbox, id, pair, receive, receive_some, soon, stopped};

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

/// The one file that is on its way.
async fn one_file(session: &Session) -> SendingFile {
    let mut sending = session.sending_files().await.expect("it works");
    assert_eq!(sending.len(), 1, "{sending:?}");
    sending.remove(0)
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

/// A receiver loses its store, and says so with a message.
async fn reset(bob: &mut Peer, to_bob: &Session) {
    let (mut reset, _on_event) = resets(to_bob);
    bob.stop().await;
    bob.store = MemoryStore::new();
    bob.start().await;
    let to_alice = bob.session(1).await;
    drop(to_alice.send(ChannelId::MESSAGES, "a line").await.unwrap());
    soon("the new epoch", reset.wait_for(|heard| *heard))
        .await
        .unwrap();
}

/// Why a file ends that nobody offers to its receiver any more.
async fn end_of(sending: &SendingFile, files: &mut FileInbox) -> StopReason {
    let reason = soon("its end", async {
        tokio::select! {
            ended = sending.done() => stopped(ended),
            event = files.next() => panic!("{event:?}"),
        }
    });
    reason.await
}

async fn session(store: &MemoryStore, with: PeerId) -> record::Session {
    let stored = store.get(Key::Session(with).to_bytes()).await;
    let stored = stored.expect("it works").expect("the session");
    record::Session::from_bytes(&stored).expect("a record")
}

/// What has been said of files.
async fn out(alice: &Peer) -> record::OutChannel {
    let session = session(&alice.store, id(2)).await;
    session.out[&ChannelId::FILES].clone()
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
    assert_eq!(end_of(sending, &mut files).await, StopReason::Failed);
}

#[tokio::test]
async fn a_receiver_whose_store_went_back_before_the_file_is_asked_about_it() {
    for crashes in [false, true] {
        let relay = MemoryRelay::new("relay");
        let (mut alice, mut bob) = pair(&relay).await;
        say(&bob.session(1).await).await;
        let backup = bob.store.faults().snapshot();
        let to_bob = alice.session(2).await;
        let sent = to_bob.send_file(alice.put("a", b"content")).await;
        let sending = sent.unwrap();
        while sending.progress().done < 7 {
            let changed = sending.changed(sending.progress());
            soon("the part", changed).await.unwrap();
        }
        drop((sending, to_bob));
        bob.go_back(&backup).await;
        let to_alice = bob.session(1).await;
        if crashes {
            alice.crash().await;
        }
        let to_bob = alice.session(2).await;
        let sending = one_file(&to_bob).await;
        let mut files = to_alice.files().await.unwrap();
        let reason = soon("its end", async {
            tokio::select! {
                ended = sending.done() => stopped(ended),
                event = files.next() => panic!("{event:?}"),
            }
        });
        assert_eq!(reason.await, StopReason::Failed);
        assert_eq!(epochs_heard(&alice.store).await, 1);
    }
}

#[tokio::test]
async fn a_receiver_whose_store_went_back_amid_a_file_has_it_if_its_disk_does() {
    for crashes in [false, true] {
        let relay = MemoryRelay::new("relay");
        let (mut alice, mut bob) = pair(&relay).await;
        let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
        // More than an inbox holds: some of it comes after the backup.
        let whole = vec![7; 12 << 20];
        let sending = to_bob.send_file(alice.put("a", &whole)).await.unwrap();
        let mut files = to_alice.files().await.unwrap();
        receive_some(&mut files, bob.disk.path(), 0).await;
        let backup = bob.store.faults().snapshot();
        receive_some(&mut files, bob.disk.path(), 9 << 20).await;
        while sending.progress().done < sending.progress().size {
            let changed = sending.changed(sending.progress());
            soon("the part", changed).await.unwrap();
        }
        drop((files, to_alice, sending, to_bob));
        bob.go_back(&backup).await;
        if crashes {
            alice.crash().await;
        }
        let to_bob = alice.session(2).await;
        let sending = one_file(&to_bob).await;
        let mut files = bob.session(1).await.files().await.unwrap();
        let file = receive(&mut files, bob.disk.path()).await;
        assert!(std::fs::read(file.path()).unwrap() == whole);
        soon("the word of it", sending.done()).await.unwrap();
        assert_eq!(epochs_heard(&alice.store).await, 1);
    }
}

/// Has the last message about files expire that waits for a peer, while nothing runs on the store.
async fn expire_last(store: &MemoryStore, with: PeerId) {
    let limit = ReadLimit {
        records: 10,
        bytes: usize::MAX,
    };
    let range = Key::outbox(with, ChannelId::FILES, Position(0), Position(u64::MAX));
    let rows = store.range(range, limit).await.expect("it works");
    let (key, record) = rows.last().expect("a message");
    let mut record = OutboxRecord::from_bytes(record).expect("a record");
    record.expires = StoreTime(1);
    let mut batch = Batch::new();
    batch.put(key.clone(), record.to_bytes());
    let mut session = session(store, with).await;
    let out = session.out.get_mut(&ChannelId::FILES).expect("a channel");
    out.earliest_expiry = Some(StoreTime(1));
    batch.put(Key::Session(with).to_bytes(), session.to_bytes());
    store.commit(batch).await.expect("it works");
}

#[tokio::test]
async fn a_question_about_a_file_that_expires_is_asked_again() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, mut bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    drop(undecided(&to_bob, &alice, &bob).await);
    // What she says from here on is lost with her process.
    let mute = relay.faults().hold(id(1), Way::ToRelay);
    reset(&mut bob, &to_bob).await;
    let to_alice = bob.session(1).await;
    let asked = async {
        while out(&alice).await.bytes() == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the question", asked).await;
    drop(to_bob);
    expire_last(alice.stopped().await, id(2)).await;
    alice.start().await;
    let to_bob = alice.session(2).await;
    let sending = one_file(&to_bob).await;
    let mut files = to_alice.files().await.unwrap();
    drop(mute);
    assert_eq!(end_of(&sending, &mut files).await, StopReason::Failed);
}

#[tokio::test]
async fn a_receiver_with_one_epoch_after_the_other_is_asked_when_it_has_the_last_question() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    drop(undecided(&to_bob, &alice, &bob).await);
    let before = out(&alice).await.next;
    let mute = relay.faults().hold(id(1), Way::ToRelay);
    for _ in 0..3 {
        reset(&mut bob, &to_bob).await;
    }
    // It is written after what follows from the last of them.
    drop(to_bob.send(ChannelId::MESSAGES, "a line").await.unwrap());
    assert_eq!(out(&alice).await.next, before.next());
    let sending = one_file(&to_bob).await;
    let mut files = bob.session(1).await.files().await.unwrap();
    drop(mute);
    assert_eq!(end_of(&sending, &mut files).await, StopReason::Failed);
}

#[tokio::test]
async fn a_receiver_that_never_says_how_a_file_ended_is_asked_once() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    say(&bob.session(1).await).await;
    let sending = undecided(&to_bob, &alice, &bob).await;
    // An app that does not know what files are.
    let mut inbox = bob.session(1).await.inbox(ChannelId::FILES).unwrap();
    for _ in ["the beginning", "the part", "the question"] {
        let message = soon("a message", inbox.next()).await.unwrap();
        message.commit().await.unwrap();
    }
    let consumed = comes("the word that all is committed", async || {
        let out = out(&alice).await;
        (out.consumed == out.next).then_some(out.next)
    });
    let end = consumed.await;
    for _ in 0..3 {
        let line = to_bob.send(ChannelId::MESSAGES, "a line").await.unwrap();
        soon("the line", line.delivered()).await.unwrap();
    }
    assert_eq!(out(&alice).await.next, end);
    assert_eq!(sending.progress().done, 7);
}

#[tokio::test]
async fn a_receiver_that_has_said_how_a_file_ended_is_not_asked() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    say(&bob.session(1).await).await;
    let sending = undecided(&to_bob, &alice, &bob).await;
    let mut files = bob.session(1).await.files().await.unwrap();
    drop(receive(&mut files, bob.disk.path()).await);
    soon("the word of it", sending.done()).await.unwrap();
    let consumed = comes("the word that all is committed", async || {
        let out = out(&alice).await;
        (out.consumed == out.next).then_some(out.next)
    });
    // The beginning, and the part.
    assert_eq!(consumed.await, Position(3));
}
