//! A peer that lies about files.

use bytes::Bytes;
use futures_util::FutureExt;
use outlive::record::{self, Key, Record};
use outlive::{
    ChannelId, FileError, FileEvent, FileInfo, Position, Session, StopReason, Store, StoreError,
    TransferId,
};
use outlive_core::store::{Batch, ReadLimit};
use outlive_core::wire::file::FileMessage;
use outlive_transports::MemoryRelay;

use crate::world::{Peer, end, id, pair, receive, receive_some, soon, stopped};

fn transfer(n: u8) -> TransferId {
    TransferId([n; 16])
}

async fn say(session: &Session, message: FileMessage) {
    let sent = session.send(ChannelId::FILES, message.to_bytes()).await;
    sent.expect("it is taken");
}

async fn begin(session: &Session, n: u8, name: &str, size: u64, content: &[u8]) {
    let info = FileInfo {
        name: name.to_owned(),
        size,
        hash: *blake3::hash(content).as_bytes(),
    };
    say(session, FileMessage::Begin(transfer(n), info)).await;
}

async fn part(session: &Session, n: u8, offset: u64, content: &[u8]) {
    let message = FileMessage::Part {
        transfer: transfer(n),
        offset,
        bytes: Bytes::copy_from_slice(content),
    };
    say(session, message).await;
}

#[tokio::test]
async fn no_name_leads_out_of_the_directory() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let into = bob.disk.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let mut files = to_alice.files().await.unwrap();
    let long = "x".repeat(255);
    let names = [
        "../x",
        "/etc/passwd",
        "a\0b",
        &long,
        "CON",
        "",
        "..",
        ".",
        ".hidden",
        "a/",
        "\\\\host\\x",
    ];
    for (n, name) in (0..).zip(names) {
        begin(&to_bob, n, name, 2, b"hi").await;
        part(&to_bob, n, 0, b"hi").await;
        let file = receive(&mut files, &into).await;
        assert_eq!(
            file.path().parent(),
            into.canonicalize().unwrap().as_path().into()
        );
        let name = file.path().file_name().unwrap().to_str().unwrap();
        assert!(!name.starts_with('.') && name.len() <= 255, "{name:?}");
        assert_eq!(std::fs::read(file.path()).unwrap(), b"hi");
    }
    assert_eq!(bob.names(), ["into"]);
}

#[tokio::test]
async fn offsets_beyond_what_was_promised_or_came_spoil_the_file_and_nothing_else() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let mut files = to_alice.files().await.unwrap();
    type Part<'a> = (u64, &'a [u8]);
    let spoiling: [(u64, &[Part<'_>]); 6] = [
        (5, &[(0, b"hello!")]),
        (5, &[(2, b"llo")]),
        (5, &[(u64::MAX, b"hello")]),
        (5, &[(0, b"hel"), (1 << 40, b"lo")]),
        (1 << 30, &[(0, b"hel"), (1 << 29, b"lo")]),
        // This is whole, but is not what was promised.
        (5, &[(0, b"hello"), (5, b"")]),
    ];
    for (n, (size, parts)) in (0..).zip(spoiling) {
        begin(&to_bob, n, "a", size, b"HELLO").await;
        for (offset, content) in parts {
            part(&to_bob, n, *offset, content).await;
        }
        let ended = end(&mut files, bob.disk.path()).await;
        assert_eq!(ended.unwrap_err(), StopReason::Corrupt, "case {n}");
        assert!(bob.names().is_empty());
    }
}

#[tokio::test]
async fn a_spoilt_file_is_told_of_though_the_store_fails_meanwhile() {
    let mut failed = 0;
    for before in 0..6 {
        let relay = MemoryRelay::new("relay");
        let (alice, bob) = pair(&relay).await;
        let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
        let mut files = to_alice.files().await.unwrap();
        begin(&to_bob, 1, "a", 5, b"hello").await;
        receive_some(&mut files, bob.disk.path(), 0).await;
        // Each time another one fails of those that follow.
        let faults = bob.store.faults();
        let mut failing = Some(faults.counts().commits + before);
        part(&to_bob, 1, 1 << 40, b"hello").await;
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
                    Some(Ok(FileEvent::Failed(_, reason))) => break reason,
                    Some(Ok(other)) => panic!("{other:?}"),
                    Some(Err(_)) | None => tokio::task::yield_now().await,
                }
            }
        };
        assert_eq!(soon("the word of it", told).await, StopReason::Corrupt);
        failed += usize::from(failing.is_none());
        assert!(bob.names().is_empty());
    }
    // Less, and there are fewer to fail than this goes through.
    assert!(failed >= 5, "only {failed} commits failed");
}

#[tokio::test]
async fn parts_that_overlap_or_come_again_are_one_file() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let mut files = to_alice.files().await.unwrap();
    begin(&to_bob, 1, "a", 5, b"hello").await;
    for (offset, content) in [(0, &b"hel"[..]), (0, b"hel"), (1, b"el"), (2, b"llo")] {
        part(&to_bob, 1, offset, content).await;
    }
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(std::fs::read(file.path()).unwrap(), b"hello");
}

#[tokio::test]
async fn what_is_no_message_about_a_file_is_passed_over() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let mut files = to_alice.files().await.unwrap();
    let huge = outlive::limits::FILE_BYTES + 1;
    begin(&to_bob, 9, "huge", huge, b"").await;
    begin(&to_bob, 9, &"n".repeat(300), 1, b"").await;
    for garbage in [&b""[..], b"\x01", b"\x01\x63", b"\xff\xff\xff", &[1; 40]] {
        to_bob
            .send(ChannelId::FILES, garbage.to_vec())
            .await
            .unwrap();
    }
    part(&to_bob, 7, 0, b"of nothing").await;
    say(
        &to_bob,
        FileMessage::Stop(transfer(7), StopReason::Cancelled),
    )
    .await;
    say(&to_bob, FileMessage::Done(transfer(7))).await;
    let sending = to_bob.send_file(alice.put("a", b"content")).await.unwrap();
    match soon("an offer", files.next()).await.unwrap() {
        FileEvent::Offered(mut offer) => {
            assert_eq!(offer.name(), "a");
            offer.accept(bob.disk.path()).await.unwrap();
        }
        other => panic!("{other:?} is no offer"),
    }
    receive(&mut files, bob.disk.path()).await;
    soon("the word of it", sending.done()).await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn links_that_lie_in_the_directory_are_not_followed_out_of_it() {
    use std::os::unix::fs::symlink;
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let (into, outside) = (
        bob.disk.path().join("into"),
        bob.disk.path().join("outside"),
    );
    std::fs::create_dir(&into).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("there"), b"as it was").unwrap();
    let mut files = to_alice.files().await.unwrap();
    for (n, target) in (0..).zip(["there", "not there"]) {
        let name = format!("{n}.txt");
        symlink(outside.join(target), into.join(&name)).unwrap();
        let coming = format!("{name}.{}.part", transfer(n));
        symlink(outside.join(target), into.join(coming)).unwrap();
        begin(&to_bob, n, &name, 2, b"hi").await;
        part(&to_bob, n, 0, b"hi").await;
        let file = receive(&mut files, &into).await;
        let path = file.path();
        assert!(!path.is_symlink() && path.ends_with(format!("into/{n} (2).txt")));
        assert_eq!(std::fs::read(path).unwrap(), b"hi");
    }
    assert_eq!(std::fs::read(outside.join("there")).unwrap(), b"as it was");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_in_the_place_of_what_came_is_not_followed_out_of_the_directory() {
    const SIZE: usize = 9 << 20;
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let sending = to_bob.send_file(alice.put("a", &vec![7; SIZE])).await;
    let mut files = to_alice.files().await.unwrap();
    receive_some(&mut files, bob.disk.path(), 1 << 20).await;
    drop(files);
    let outside = alice.put("outside", &vec![0; SIZE]);
    let part = bob.part();
    std::fs::remove_file(&part).unwrap();
    std::os::unix::fs::symlink(&outside, &part).unwrap();
    let mut files = to_alice.files().await.unwrap();
    let ended = end(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(&outside).unwrap() == vec![0; SIZE]);
    assert_eq!(ended.unwrap_err(), StopReason::Failed);
    assert!(bob.names().is_empty());
    let reason = stopped(soon("the word of it", sending.unwrap().done()).await);
    assert_eq!(reason, StopReason::Failed);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_takes_the_place_of_what_comes_is_an_error_until_it_is_gone() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let mut files = to_alice.files().await.unwrap();
    begin(&to_bob, 1, "a", 5, b"hello").await;
    part(&to_bob, 1, 0, b"hel").await;
    receive_some(&mut files, bob.disk.path(), 3).await;
    // It holds what is expected, so that only the link can be what is wrong.
    let outside = alice.put("outside", b"hello");
    let (part_path, aside) = (bob.part(), bob.disk.path().join("aside"));
    std::fs::rename(&part_path, &aside).unwrap();
    std::os::unix::fs::symlink(&outside, &part_path).unwrap();
    part(&to_bob, 1, 3, b"lo").await;
    let failed = soon("the failure", files.next()).await;
    assert!(matches!(failed, Err(FileError::Io { .. })), "{failed:?}");
    std::fs::rename(&aside, &part_path).unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(!file.path().is_symlink());
    assert_eq!(std::fs::read(file.path()).unwrap(), b"hello");
}

#[tokio::test]
async fn a_beginning_that_comes_again_after_its_file_is_whole_is_not_offered_again() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    for app_commits in [false, true] {
        let n = app_commits.into();
        begin(&to_bob, n, "empty", 0, b"").await;
        let mut files = to_alice.files().await.unwrap();
        drop(receive(&mut files, bob.disk.path()).await);
        // As it does if the process dies before the message is committed.
        drop(files);
        begin(&to_bob, n, "empty", 0, b"").await;
        let name = format!("behind {n}");
        to_bob.send_file(alice.put(&name, b"b")).await.unwrap();
        let mut files = to_alice.files().await.unwrap();
        let mut held = Some(receive(&mut files, bob.disk.path()).await);
        if app_commits {
            held.take().expect("it").commit().await.unwrap();
        }
        match soon("what is behind it", files.next()).await.unwrap() {
            FileEvent::Offered(mut offer) => {
                assert_eq!(offer.name(), name);
                offer.accept(bob.disk.path()).await.unwrap();
            }
            other => panic!("{other:?} is no offer"),
        }
        let behind = receive(&mut files, bob.disk.path()).await;
        behind.commit().await.unwrap();
        if let Some(held) = held {
            held.commit().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_second_beginning_changes_nothing() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let mut files = to_alice.files().await.unwrap();
    begin(&to_bob, 1, "a", 5, b"hello").await;
    part(&to_bob, 1, 0, b"hel").await;
    begin(&to_bob, 1, "b", 1 << 30, b"other").await;
    part(&to_bob, 1, 3, b"lo").await;
    let file = receive(&mut files, bob.disk.path()).await;
    assert_eq!(std::fs::read(file.path()).unwrap(), b"hello");
    assert_eq!(bob.names(), ["a"]);
}

#[tokio::test]
async fn what_a_receiver_says_of_nothing_or_says_wrong_ends_no_other_file() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    let path = alice.put("a", &vec![7; 2 << 20]);
    let sending = to_bob.send_file(path).await.unwrap();
    let info = sending.info().clone();
    let replies = [
        FileMessage::Done(transfer(7)),
        FileMessage::Stop(transfer(7), StopReason::Declined),
        FileMessage::Begin(sending.transfer(), info),
        FileMessage::Part {
            transfer: sending.transfer(),
            offset: 0,
            bytes: Bytes::from_static(b"not for you"),
        },
    ];
    let garbage = [
        &b""[..],
        b"\x01",
        b"\x01\x63",
        b"\xff\xff\xff",
        &[1; 40],
        &[4; 17],
    ];
    let replies = replies.map(|reply| reply.to_bytes());
    let said = replies.into_iter().chain(garbage.map(Bytes::from_static));
    reply(&relay, &mut bob, said).await;
    let to_alice = bob.session(1).await;
    // Nobody at the other end is told of any of it, and all of it is taken.
    let mut state = to_alice.state();
    let heard = state.wait_for(|state| !state.outstanding);
    drop(soon("the replies to be heard", heard).await.unwrap());
    let mut files = to_alice.files().await.unwrap();
    receive(&mut files, bob.disk.path()).await;
    soon("the word of it", sending.done()).await.unwrap();
}

/// Has a peer say something on a channel that its library keeps for itself.
async fn reply(relay: &MemoryRelay, bob: &mut Peer, said: impl Iterator<Item = Bytes>) {
    const ELSEWHERE: ChannelId = ChannelId::FIRST_APP;
    let away = relay.faults().unreachable();
    relay.faults().cut(id(2));
    let to_alice = bob.session(1).await;
    for payload in said {
        drop(to_alice.send(ELSEWHERE, payload).await.unwrap());
    }
    drop(to_alice);
    let store = bob.stopped().await;
    let limit = ReadLimit {
        records: 100,
        bytes: usize::MAX,
    };
    let range = Key::outbox(id(1), ELSEWHERE, Position(0), Position(100));
    let mut batch = Batch::new();
    for (key, record) in store.range(range, limit).await.unwrap() {
        let Ok(Key::Outbox(peer, _, position)) = Key::from_bytes(&key) else {
            panic!("no key of the outbox");
        };
        batch.delete(key);
        let key = Key::Outbox(peer, ChannelId::FILE_REPLIES, position);
        batch.put(key.to_bytes(), record);
    }
    let key = Key::Session(id(1)).to_bytes();
    let stored = store.get(key.clone()).await.unwrap();
    let mut stored = record::Session::from_bytes(&stored.expect("the session")).unwrap();
    let out = stored.out.remove(&ELSEWHERE).expect("its channel");
    stored.out.insert(ChannelId::FILE_REPLIES, out);
    batch.put(key, stored.to_bytes());
    store.commit(batch).await.unwrap();
    bob.start().await;
    drop(away);
}

#[tokio::test]
async fn a_receiver_that_says_done_too_early_ends_its_own_file_alone() {
    let relay = MemoryRelay::new("relay");
    let (alice, mut bob) = pair(&relay).await;
    let to_bob = alice.session(2).await;
    let path = alice.put("a", &vec![7; 12 << 20]);
    let sending = to_bob.send_file(path).await.unwrap();
    let done = FileMessage::Done(sending.transfer()).to_bytes();
    reply(&relay, &mut bob, [done].into_iter()).await;
    soon("the word of it", sending.done()).await.unwrap();
    let mut files = bob.session(1).await.files().await.unwrap();
    let next = to_bob.send_file(alice.put("b", b"b")).await.unwrap();
    loop {
        match soon("b", files.next()).await.unwrap() {
            FileEvent::Offered(offer) if offer.name() == "a" => offer.decline(),
            FileEvent::Offered(mut offer) => offer.accept(bob.disk.path()).await.unwrap(),
            FileEvent::Received(_) => break,
            _ => {}
        }
    }
    soon("the word of b", next.done()).await.unwrap();
}
