//! What a relay can make a node do or keep: little, however hard it tries.

use bytes::Bytes;
use outlive_core::EnvelopeId;
use outlive_core::transport::{Class, Incoming, Outgoing, Sender, Slot};

use crate::played;
use crate::world::{CHAT, id};

/// A packet that no keys open: its form is right, and it names keys that nobody has.
fn under_unknown_keys() -> Bytes {
    Bytes::from_static(&[2; 64])
}

#[tokio::test]
async fn acknowledgements_that_a_relay_does_not_read_are_bounded() {
    const FLOOD: u64 = 20_000;
    const MOST: usize = 5_000;
    let (node, mut lines) = played::node(1).await;
    let session = node.session(id(2)).await.unwrap();
    let mut line = played::next(&mut lines).await;
    line.hears(false);
    for number in 1..=FLOOD {
        line.deliver(id(2), number, &under_unknown_keys()).await;
    }
    // What is sent now leaves behind everything that waits.
    session.send(CHAT, "behind them").await.unwrap();
    line.hears(true);
    let mut acknowledgements = 0;
    loop {
        match line.said().await {
            Outgoing::Acknowledge { .. } => acknowledgements += 1,
            Outgoing::Submit {
                class: Class::Keep, ..
            } => break,
            _ => {}
        }
    }
    assert!(acknowledgements > 0, "the flood was acknowledged");
    assert!(acknowledgements < MOST, "{acknowledgements} were kept");
    drop(session);
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_nobody_takes_is_let_go_as_soon_as_the_relay_reads_again() {
    const JUNK: u64 = 1_000;
    let (_node, mut lines) = played::node(1).await;
    let mut line = played::next(&mut lines).await;
    line.hears(false);
    let from = Sender::Slot(Slot([7; 32]));
    for number in 1..=JUNK {
        line.tell(Incoming::Deliver {
            from,
            envelope: Some(EnvelopeId(number)),
            packet: under_unknown_keys(),
        })
        .await;
    }
    line.hears(true);
    for number in 1..=JUNK {
        let envelopes = vec![EnvelopeId(number)];
        assert_eq!(line.said().await, Outgoing::Acknowledge { from, envelopes });
    }
}
