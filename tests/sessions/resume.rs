//! A link is bound again: nothing twice, nothing lost, in both directions, however often.

use std::time::Duration;

use outlive::{Inbox, NetworkMonitor, SessionEvent};
use outlive_storage::MemoryStore;
use outlive_transports::{MemoryRelay, Way};
use tokio::time::Instant;

use crate::proxy::Proxy;
use crate::scene::{
    acquaint, at_once, counted, linked, on, on_store, pair, unlinked, with_network,
};
use crate::world::{CHAT, id, relay, soon, take, way};

/// Nothing here needs a timer of a session to run out: the first runs out after two seconds.
const NO_TIMER: Duration = Duration::from_secs(1);

async fn nothing_more(inbox: &mut Inbox) {
    let more = inbox.try_next().await.expect("the store works");
    assert!(more.is_none(), "{more:?}");
}

/// So large that each is sent in a packet of its own: packets can be counted.
fn large(n: u64) -> String {
    format!("{n}{}", " ".repeat(40_000))
}

#[tokio::test]
async fn a_resume_sends_and_delivers_nothing_twice() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = pair(&relay).await;
    let mut events = to_alice.events(1_024);
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    for n in 0..10 {
        // Bob has it, and neither alice nor the relay hears of it before the links break.
        let mute = relay.faults().hold(id(2), Way::ToRelay);
        let receipt = to_bob.send(CHAT, large(n)).await.unwrap();
        assert!(take(&mut inbox).await == large(n));
        soon("custody", receipt.custody()).await.unwrap();
        relay.faults().cut(id(1));
        relay.faults().cut(id(2));
        drop(mute);
        soon("delivery", receipt.delivered()).await.unwrap();
        assert_eq!(relay.counts().borrow().taken, n + 1, "sent twice");
    }
    counted(&relay, "an empty mailbox", |counts| counts.waiting == 0).await;
    nothing_more(&mut inbox).await;
    // A counter that was written by a resume would have to be mended by one of these.
    while let Some(Some((event, _))) = at_once(events.next()).await {
        let mended = matches!(
            event,
            SessionEvent::Gap { .. }
                | SessionEvent::PeerReset { .. }
                | SessionEvent::Renewed { .. }
        );
        assert!(!mended, "{event:?}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_never_sent_again_after_a_suspend() {
    let relay = MemoryRelay::new("relay");
    let store = MemoryStore::new();
    let alice = on_store(1, store.clone(), &[&relay]).await;
    let bob = on(2, &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut inbox = bob.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    for n in 0..20 {
        let receipt = to_bob.send(CHAT, large(n)).await.unwrap();
        assert!(take(&mut inbox).await == large(n));
        soon("delivery", receipt.delivered()).await.unwrap();
    }
    let before = relay.counts().borrow().taken;
    // Suspended: its process is gone, and the relay forgets what it held.
    drop((to_bob, alice));
    relay.faults().lose_store();
    let alice = on_store(1, store.faults().crash(), &[&relay]).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let receipt = to_bob.send(CHAT, large(20)).await.unwrap();
    assert!(take(&mut inbox).await == large(20));
    soon("delivery", receipt.delivered()).await.unwrap();
    assert_eq!(relay.counts().borrow().taken, before + 1);
    nothing_more(&mut inbox).await;
}

#[tokio::test(start_paused = true)]
async fn both_directions_resume_in_the_same_exchange() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = pair(&relay).await;
    let (mut at_alice, mut at_bob) = (to_bob.inbox(CHAT).unwrap(), to_alice.inbox(CHAT).unwrap());
    acquaint(&to_bob, &mut at_bob).await;
    acquaint(&to_alice, &mut at_alice).await;
    let down = relay.faults().down();
    unlinked(&to_bob).await;
    unlinked(&to_alice).await;
    for n in 0..50 {
        to_bob.send(CHAT, format!("to bob {n}")).await.unwrap();
        to_alice.send(CHAT, format!("to alice {n}")).await.unwrap();
    }
    drop(down);
    linked(&to_bob).await;
    linked(&to_alice).await;
    let bound = Instant::now();
    for n in 0..50 {
        assert_eq!(take(&mut at_bob).await, format!("to bob {n}"));
        assert_eq!(take(&mut at_alice).await, format!("to alice {n}"));
    }
    assert!(bound.elapsed() < NO_TIMER, "{:?}", bound.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_session_in_which_nothing_was_sent_yet_resumes_like_any_other() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = pair(&relay).await;
    for peer in [1, 2, 1, 2] {
        relay.faults().cut(id(peer));
    }
    unlinked(&to_bob).await;
    unlinked(&to_alice).await;
    linked(&to_bob).await;
    linked(&to_alice).await;
    let bound = Instant::now();
    to_alice.send(CHAT, "the first ever").await.unwrap();
    let mut inbox = to_bob.inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "the first ever");
    // And the other side, from which nothing has come to this moment.
    relay.faults().cut(id(1));
    to_bob.send(CHAT, "an answer").await.unwrap();
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "an answer");
    assert!(bound.elapsed() < NO_TIMER, "{:?}", bound.elapsed());
}

#[tokio::test]
async fn the_hundredth_rebind_is_like_the_first_while_the_old_sockets_linger() {
    let relay = relay().await;
    let proxy = Proxy::before(&relay).await;
    let (network, none) = (NetworkMonitor::new(), NetworkMonitor::new());
    let bob = with_network(2, proxy.way(), &network).await;
    let alice = with_network(1, way(&relay), &none).await;
    let (to_bob, to_alice) = (
        alice.session(id(2)).await.unwrap(),
        bob.session(id(1)).await.unwrap(),
    );
    let (mut at_alice, mut at_bob) = (to_bob.inbox(CHAT).unwrap(), to_alice.inbox(CHAT).unwrap());
    for n in 0..100 {
        linked(&to_alice).await;
        to_bob.send(CHAT, format!("to bob {n}")).await.unwrap();
        assert_eq!(take(&mut at_bob).await, format!("to bob {n}"));
        to_alice.send(CHAT, format!("to alice {n}")).await.unwrap();
        assert_eq!(take(&mut at_alice).await, format!("to alice {n}"));
        // The relay does not hear that bob closes his end.
        proxy.half_dead();
        network.down();
        unlinked(&to_alice).await;
        network.up();
    }
    nothing_more(&mut at_bob).await;
    nothing_more(&mut at_alice).await;
}

#[tokio::test]
async fn what_is_sent_at_any_moment_of_a_rebind_arrives_in_order() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = pair(&relay).await;
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    let send = async |moment: &str| {
        to_bob.send(CHAT, moment.to_owned()).await.unwrap();
    };
    for _ in 0..10 {
        let dialing = relay.faults().hold_dialing();
        let told = relay.faults().hold(id(1), Way::FromRelay);
        let said = relay.faults().hold(id(1), Way::ToRelay);
        send("onto the old link").await;
        relay.faults().cut(id(1));
        send("as it breaks").await;
        unlinked(&to_bob).await;
        send("while it dials").await;
        drop(dialing);
        linked(&to_bob).await;
        send("before its resume was heard").await;
        drop(said);
        send("before the answer").await;
        relay.faults().cut(id(1));
        send("as the new one breaks too").await;
        unlinked(&to_bob).await;
        linked(&to_bob).await;
        drop(told);
        send("when all is well").await;
        for moment in [
            "onto the old link",
            "as it breaks",
            "while it dials",
            "before its resume was heard",
            "before the answer",
            "as the new one breaks too",
            "when all is well",
        ] {
            assert_eq!(take(&mut inbox).await, moment);
        }
    }
    nothing_more(&mut inbox).await;
}

#[tokio::test]
async fn a_disconnect_shows_in_the_state_and_as_an_event() {
    let relay = MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, _to_alice) = pair(&relay).await;
    let mut events = to_bob.events(16);
    let link = to_bob.state().borrow().links[0].generation;
    let down = relay.faults().down();
    let gone = async {
        loop {
            let (event, state) = events.next().await.expect("the session lives");
            if event == (SessionEvent::LinkDown { generation: link }) {
                return state;
            }
        }
    };
    let state = soon("the event", gone).await;
    assert!(state.links.is_empty() && state.peer_online.is_none());
    unlinked(&to_bob).await;
    drop(down);
    linked(&to_bob).await;
    assert!(to_bob.state().borrow().links[0].generation > link);
    counted(&relay, "both to be back", |counts| counts.connected == 2).await;
}
