//! Files that arrive.

use std::pin::pin;

use outlive::{ChannelId, FileEvent, StopReason};
use outlive_transports::MemoryRelay;

use crate::world::{
    APP, carried, content, end, fill_outbox, id, pair, receive, receive_some, soon,
};

#[tokio::test]
async fn a_file_arrives_whole_under_its_name_and_both_sides_hear_of_it() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let whole = content(3_000_000);
    let path = alice.put("bridge.jpeg", &whole);
    let sending = to_bob.send_file(&path).await.unwrap();
    assert_eq!(sending.info().size, 3_000_000);
    let mut files = to_alice.files().await.unwrap();
    let offered = soon("an offer", files.next()).await.unwrap();
    let FileEvent::Offered(mut offer) = offered else {
        panic!("{offered:?} is no offer");
    };
    assert_eq!((offer.name(), offer.size()), ("bridge.jpeg", 3_000_000));
    assert_eq!(offer.from(), id(1));
    offer.accept(bob.disk.path()).await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
    assert_eq!(file.info().hash, sending.info().hash);
    assert_eq!(bob.names(), ["bridge.jpeg"]);
    file.commit().await.unwrap();
    soon("the word of it", sending.done()).await.unwrap();
    let progress = sending.progress();
    assert_eq!(progress.done, progress.size);
    assert_eq!(sending.changed(progress).await.unwrap(), None);
    assert!(to_bob.sending_files().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_empty_file_arrives_too() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let sending = to_bob.send_file(alice.put("empty", b"")).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(std::fs::metadata(file.path()).unwrap().len(), 0);
    soon("the word of it", sending.done()).await.unwrap();
}

#[tokio::test]
async fn a_file_waits_in_the_mailbox_of_a_peer_that_is_away_while_its_sender_leaves() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, mut bob) = pair(&relay).await;
    bob.stop().await;
    let to_bob = alice.session(2).await;
    let whole = content(500_000);
    to_bob.send_file(alice.put("a", &whole)).await.unwrap();
    let behind = to_bob.send(ChannelId::FILES, "behind it").await.unwrap();
    soon("custody", behind.custody()).await.unwrap();
    drop((behind, to_bob));
    alice.stop().await;
    bob.crash().await;
    let mut files = bob.session(1).await.files().await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
}

#[tokio::test]
async fn a_file_goes_on_through_ten_cuts_of_its_link() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let whole = content(44 << 20);
    let sending = to_bob.send_file(alice.put("a", &whole)).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    for cut in 1..=10 {
        receive_some(&mut files, bob.disk.path(), cut << 22).await;
        relay.faults().cut(id(if cut % 2 == 0 { 1 } else { 2 }));
    }
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
    soon("the word of it", sending.done()).await.unwrap();
}

/// What a process sends or receives beside the content of a file, at most.
const BESIDE: u64 = 512 * 1024;

#[tokio::test]
async fn a_file_goes_on_where_it_was_when_its_sender_comes_back() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, bob) = pair(&relay).await;
    let to_alice = bob.session(1).await;
    let whole = content(12 << 20);
    let path = alice.put("a", &whole);
    let sending = alice.session(2).await.send_file(path).await.unwrap();
    let mut files = to_alice.files().await.unwrap();
    receive_some(&mut files, bob.disk.path(), 8 << 20).await;
    // The sender knows of that.
    let mut there = sending.progress();
    while there.done < 8 << 20 {
        let changed = soon("progress", sending.changed(there)).await.unwrap();
        there = changed.expect("it is not over");
    }
    drop(sending);
    alice.crash().await;
    let to_bob = alice.session(2).await;
    let sending = to_bob.sending_files().await.unwrap();
    let first = receive_some(&mut files, bob.disk.path(), 9 << 20).await;
    assert!(first >= 8 << 20, "it began anew at {first}");
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
    // Unless the word of it came before anybody could ask.
    for sending in sending {
        soon("the word of it", sending.done()).await.unwrap();
    }
    let (sent, _) = carried(&to_bob);
    assert!(sent < (4 << 20) + BESIDE, "{sent} bytes were sent again");
}

#[tokio::test]
async fn a_file_goes_on_where_it_was_when_its_receiver_comes_back() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    let whole = content(20 << 20);
    let sending = to_bob.send_file(alice.put("a", &whole)).await.unwrap();
    for part in 1..=4 {
        let mut files = bob.session(1).await.files().await.unwrap();
        let first = receive_some(&mut files, bob.disk.path(), part << 22).await;
        assert!(first >= (part - 1) << 22, "it began anew at {first}");
        drop(files);
        bob.crash().await;
        assert_eq!(bob.names(), ["a.part"]);
    }
    let to_alice = bob.session(1).await;
    let mut files = to_alice.files().await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
    assert_eq!(bob.names(), ["a"]);
    soon("the word of it", sending.done()).await.unwrap();
    let (_, came) = carried(&to_alice);
    assert!(came < (4 << 20) + BESIDE, "{came} bytes came again");
}

#[tokio::test]
async fn a_file_that_the_app_has_not_committed_is_told_again() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    to_bob.send_file(alice.put("a", b"content")).await.unwrap();
    for _ in 0..2 {
        let mut files = bob.session(1).await.files().await.unwrap();
        let file = receive(&mut files, bob.disk.path()).await;
        assert_eq!(std::fs::read(file.path()).unwrap(), b"content");
        drop((files, file));
        bob.crash().await;
    }
    let mut files = bob.session(1).await.files().await.unwrap();
    receive(&mut files, bob.disk.path())
        .await
        .commit()
        .await
        .unwrap();
    drop(files);
    let mut files = bob.session(1).await.files().await.unwrap();
    to_bob.send_file(alice.put("b", b"more")).await.unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(std::fs::read(file.path()).unwrap(), b"more");
    assert_eq!(bob.names(), ["a", "b"]);
}

#[tokio::test]
async fn two_files_of_one_name_both_arrive_and_nothing_is_overwritten() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    bob.put("a.txt", b"was here");
    let mut files = to_alice.files().await.unwrap();
    for directory in ["0", "1"] {
        std::fs::create_dir(alice.disk.path().join(directory)).unwrap();
        let path = alice.put(&format!("{directory}/a.txt"), directory.as_bytes());
        to_bob.send_file(path).await.unwrap();
        receive(&mut files, bob.disk.path()).await;
    }
    assert_eq!(bob.names(), ["a (2).txt", "a (3).txt", "a.txt"]);
    let read = |name| std::fs::read(bob.disk.path().join(name)).unwrap();
    assert_eq!(read("a.txt"), b"was here");
    assert_eq!(read("a (2).txt"), b"0");
    assert_eq!(read("a (3).txt"), b"1");
}

#[tokio::test]
async fn files_go_both_ways_at_once_and_chat_goes_on_beside_them() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let (one, two) = (content(4 << 20), content(3 << 20));
    let there = to_bob.send_file(alice.put("one", &one)).await.unwrap();
    let back = to_alice.send_file(bob.put("two", &two)).await.unwrap();
    let mut at_bob = to_alice.files().await.unwrap();
    let mut chat = to_alice.inbox(ChannelId::MESSAGES).unwrap();
    // Nobody has taken a byte of the file yet, and it holds up nothing.
    for n in 0..20 {
        let text = format!("line {n}");
        to_bob
            .send(ChannelId::MESSAGES, text.clone())
            .await
            .unwrap();
        let line = soon("a line", chat.next()).await.unwrap();
        assert_eq!(line.payload(), text.as_bytes());
        line.commit().await.unwrap();
    }
    let mut at_alice = to_bob.files().await.unwrap();
    let (one_came, two_came) = tokio::join!(
        end(&mut at_bob, bob.disk.path()),
        end(&mut at_alice, alice.disk.path())
    );
    assert!(std::fs::read(one_came.unwrap().path()).unwrap() == one);
    assert!(std::fs::read(two_came.unwrap().path()).unwrap() == two);
    soon("the word of one", there.done()).await.unwrap();
    soon("the word of two", back.done()).await.unwrap();
}

#[tokio::test]
async fn a_file_waits_for_room_in_the_outbox_as_a_message_does() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, bob) = pair(&relay).await;
    let mut files = bob.session(1).await.files().await.unwrap();
    let away = fill_outbox(&relay, &mut alice, None).await;
    let to_bob = alice.session(2).await;
    assert!(to_bob.try_send(APP, "too much").await.is_err());
    let path = alice.put("a", b"content");
    let mut sending = pin!(to_bob.send_file(path));
    // It waits: all that there is to do is done when this is.
    let beside = async {
        to_bob.sending_files().await.unwrap();
        to_bob.try_send(APP, "too much").await.unwrap_err();
    };
    tokio::select! {
        biased;
        sent = &mut sending => panic!("{sent:?} while there was no room"),
        () = beside => {}
    }
    drop(away);
    let sending = soon("room", sending).await.unwrap();
    receive(&mut files, bob.disk.path()).await;
    soon("the word of it", sending.done()).await.unwrap();
}

#[tokio::test]
async fn a_file_called_off_while_the_outbox_is_full_is_so_at_its_receiver_when_there_is_room() {
    let relay = MemoryRelay::new("relay");
    let (mut alice, bob) = pair(&relay).await;
    let mut files = bob.session(1).await.files().await.unwrap();
    let path = alice.put("a", &content(8 << 20));
    let away = fill_outbox(&relay, &mut alice, Some(path)).await;
    let to_bob = alice.session(2).await;
    let [sending] = &to_bob.sending_files().await.unwrap()[..] else {
        panic!("one file")
    };
    sending.cancel().await.unwrap();
    drop(away);
    let ended = end(&mut files, bob.disk.path()).await;
    assert_eq!(ended.unwrap_err(), StopReason::Cancelled);
    assert!(bob.names().is_empty());
}
