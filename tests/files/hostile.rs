//! A peer that lies about files.

use bytes::Bytes;
use outlive::{ChannelId, FileEvent, FileInfo, Session, StopReason, TransferId};
use outlive_core::wire::file::FileMessage;
use outlive_transports::MemoryRelay;

use crate::world::{end, pair, receive, soon};

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
    let spoiling: [&[(u64, &[u8])]; 5] = [
        &[(0, b"hello!")],
        &[(2, b"llo")],
        &[(u64::MAX, b"hello")],
        &[(0, b"hel"), (1 << 40, b"lo")],
        &[(0, b"hello"), (5, b"")],
    ];
    for (n, parts) in (0..).zip(spoiling) {
        // The last is whole, but is not what was promised.
        begin(&to_bob, n, "a", 5, b"HELLO").await;
        for (offset, content) in parts {
            part(&to_bob, n, *offset, content).await;
        }
        let ended = end(&mut files, bob.disk.path()).await;
        assert_eq!(ended.unwrap_err(), StopReason::Corrupt, "case {n}");
        assert!(bob.names().is_empty());
    }
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
