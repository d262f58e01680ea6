//! A session that takes nothing, because a callback of it is stuck, holds up no other.

use std::sync::mpsc;

use bytes::Bytes;
use outlive::SessionEvent;
use outlive_core::transport::{Incoming, Outgoing};

use crate::played;
use crate::world::{id, until};

/// Far more than a session's task and the relay's keep for it together.
const FLOOD: u64 = 2_000;

async fn presence(line: &played::Line, peer: u8, online: bool) {
    let peer = id(peer);
    line.tell(Incoming::Presence { peer, online }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_whose_callback_is_stuck_holds_up_no_other() {
    let (node, mut lines) = played::node(1).await;
    let stuck = node.session(id(2)).await.unwrap();
    let free = node.session(id(3)).await.unwrap();
    let mut line = played::next(&mut lines).await;
    until(&stuck, "a link", |state| !state.links.is_empty()).await;
    let first = stuck.state().borrow().links.clone();
    let (release, released) = mpsc::channel::<()>();
    let _stuck = stuck.on_event(move |event, _| {
        if let SessionEvent::Presence { online: true } = event {
            // The test may have failed.
            let _ = released.recv();
        }
    });
    // Should the test fail, this goes before the subscription, which waits for its callback.
    let release = release;
    presence(&line, 2, true).await;
    for number in 1..=FLOOD {
        line.deliver(id(2), number, &Bytes::from_static(&[2; 64]))
            .await;
    }
    presence(&line, 3, true).await;
    until(&free, "word of its peer", |state| {
        state.peer_online == Some(true)
    })
    .await;
    // What it could not take is asked for again when it can.
    presence(&line, 2, false).await;
    release.send(()).unwrap();
    until(&stuck, "word of its peer", |state| {
        state.peer_online == Some(false)
    })
    .await;
    let again = Outgoing::Redeliver { from: id(2).into() };
    while line.said().await != again {}

    // It is bound to new connections late, and the others in time.
    presence(&line, 2, true).await;
    drop(line);
    for _ in 0..3 {
        let line = played::next(&mut lines).await;
        presence(&line, 3, true).await;
        until(&free, "word of its peer", |state| {
            state.peer_online == Some(true)
        })
        .await;
        drop(line);
        until(&free, "the end of its link", |state| state.links.is_empty()).await;
    }
    let _line = played::next(&mut lines).await;
    release.send(()).unwrap();
    until(&stuck, "another link", |state| {
        !state.links.is_empty() && state.links != first
    })
    .await;
    drop((stuck, free));
    node.shutdown().await.unwrap();
}
