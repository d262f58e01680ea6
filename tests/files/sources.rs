//! Files that can't be read for a while where they lie.

use outlive::{ChannelId, FileEvent};
use outlive_transports::MemoryRelay;

use crate::world::{content, id, pair, receive, soon};

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_can_not_be_read_for_a_while_arrives_when_it_can_and_chat_does_not_wait() {
    let relay = MemoryRelay::new("relay");
    let (alice, bob) = pair(&relay).await;
    let (to_bob, to_alice) = (alice.session(2).await, bob.session(1).await);
    let (place, aside) = (alice.disk.path().join("d"), alice.disk.path().join("aside"));
    std::fs::create_dir(&place).unwrap();
    let whole = content(2 << 20);
    let path = alice.put("d/a", &whole);
    // Nothing leaves before it can't be read.
    let away = relay.faults().unreachable();
    relay.faults().cut(id(1));
    let sending = to_bob.send_file(path).await.unwrap();
    // A link to itself leads nowhere, for root neither.
    std::fs::rename(&place, &aside).unwrap();
    std::os::unix::fs::symlink(&place, &place).unwrap();
    drop(away);
    let mut files = to_alice.files().await.unwrap();
    match soon("an offer", files.next()).await.unwrap() {
        FileEvent::Offered(mut offer) => offer.accept(bob.disk.path()).await.unwrap(),
        other => panic!("{other:?} is no offer"),
    }
    for _ in 0..3 {
        let line = to_bob.send(ChannelId::MESSAGES, "a line").await.unwrap();
        soon("the line", line.delivered()).await.unwrap();
    }
    std::fs::remove_file(&place).unwrap();
    std::fs::rename(&aside, &place).unwrap();
    let file = receive(&mut files, bob.disk.path()).await;
    assert!(std::fs::read(file.path()).unwrap() == whole);
    soon("the word of it", sending.done()).await.unwrap();
}
