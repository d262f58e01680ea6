//! Four scenarios in which one callback for all peers, configured and reset beside the connections it
//! serves, would go wrong: a connection fails and the next ones come at once, all are disposed of while
//! they are busy, the relay is replaced while the old one has something to say, and events come while
//! the connection is taken away under them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use outlive::{Error, Generation, NetworkMonitor, Node, Session, SessionEvent, Subscription};
use outlive_transports::{MemoryRelay, Way};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::scene::{counted, linked, on, unlinked, with_network};
use crate::world::{CHAT, id, node, relay, soon, take, until, url, way};

/// Counts how often a callback was entered, and with how many messages.
fn counting(session: &Session) -> (Subscription, watch::Receiver<(usize, usize)>) {
    let (count, counted) = watch::channel((0, 0));
    let subscription = session.on_event(move |event, _| {
        let message = matches!(event, SessionEvent::Message { .. });
        count.send_modify(|(entered, messages)| {
            *entered += 1;
            *messages += usize::from(message);
        });
    });
    (subscription, counted)
}

/// Scenario 1: a connection fails while it is set up, and at once the user connects to the same peer
/// and to another one. Neither callback refers to what failed, and neither stands in the other's way.
#[tokio::test]
async fn rapid_reconnection() {
    let (relay, network) = (MemoryRelay::new("relay"), NetworkMonitor::new());
    let me = with_network(1, relay.clone(), &network).await;
    let (a, b) = (on(2, &[&relay]).await, on(3, &[&relay]).await);
    let with_a = me.session(id(2)).await.unwrap();
    linked(&with_a).await;
    let (_before, heard_before) = counting(&with_a);
    for round in 1..=10 {
        // The link fails; the next one fails within its setup; then A and B at the same time.
        let hanging = relay.faults().hold_dialing();
        relay.faults().cut(id(1));
        unlinked(&with_a).await;
        network.down();
        drop(hanging);
        network.up();
        let (again, with_b) = tokio::try_join!(me.session(id(2)), me.session(id(3))).unwrap();
        let ((_of_a, from_a), (_of_b, from_b)) = (counting(&again), counting(&with_b));
        tokio::join!(linked(&again), linked(&with_b));
        let (to_a, to_b) = tokio::try_join!(a.session(id(1)), b.session(id(1))).unwrap();
        let text = format!("round {round}");
        tokio::try_join!(to_a.send(CHAT, text.clone()), to_b.send(CHAT, text.clone())).unwrap();
        for (session, heard) in [(&again, from_a), (&with_b, from_b)] {
            assert_eq!(take(&mut session.inbox(CHAT).unwrap()).await, text);
            assert_eq!(heard.borrow().1, 1, "each hears of its own peer alone");
            assert_eq!(session.state().borrow().links.len(), 1);
        }
        assert_eq!(heard_before.borrow().1, round, "and the first one of all");
        assert_eq!((with_a.subscriptions(), with_b.subscriptions()), (2, 1));
    }
    assert_eq!(relay.counts().borrow().connected, 3);
}

/// Scenario 2: the connections to three peers are disposed of while they are busy. No callback is
/// entered when that is done, though the peers go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_inconsistency_during_disposal() {
    let relay = relay().await;
    let me = node(1, &relay).await;
    let (disposed, late) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (mut sessions, mut subscriptions) = (Vec::new(), Vec::new());
    let (mut counts, mut peers) = (Vec::new(), Vec::new());
    for n in 2..5 {
        let session = me.session(id(n)).await.unwrap();
        let (subscription, count) = counting(&session);
        let (disposed, late) = (disposed.clone(), late.clone());
        subscriptions.push(subscription);
        subscriptions.push(session.on_event(move |_, _| {
            if disposed.load(Ordering::SeqCst) {
                late.store(true, Ordering::SeqCst);
            }
        }));
        counts.push(count);
        sessions.push(session);
        peers.push(node(n, &relay).await);
    }
    let mut sending = JoinSet::new();
    for peer in &peers {
        let session = peer.session(id(1)).await.unwrap();
        sending.spawn(async move {
            // One after the other, so that each is an event of its own.
            for n in 0..300 {
                let receipt = session.send(CHAT, format!("{n}")).await?;
                receipt.custody().await?;
            }
            Ok::<_, Error>(())
        });
    }
    for count in &mut counts {
        let busy = count.wait_for(|(_, messages)| *messages >= 3);
        soon("events", busy).await.unwrap();
    }
    soon("the end", me.shutdown()).await.unwrap();
    disposed.store(true, Ordering::SeqCst);
    let entered: Vec<_> = counts.iter().map(|count| *count.borrow()).collect();
    // All that the peers said has left them by now, and nobody was disturbed by it.
    while let Some(sent) = soon("the peers", sending.join_next()).await {
        sent.unwrap().unwrap();
    }
    assert!(!late.load(Ordering::SeqCst));
    let after: Vec<_> = counts.iter().map(|count| *count.borrow()).collect();
    assert_eq!(after, entered);
    let refused = sessions[0].send(CHAT, "late").await;
    assert!(
        matches!(refused, Err(Error::Shutdown | Error::Closed)),
        "{refused:?}"
    );
    drop((subscriptions, sessions));
}

/// Scenario 3: the server is replaced while the old one is up and has something to say still. The
/// callbacks stay, hear nothing of the old server, and what is sent goes to the new one.
#[tokio::test]
async fn signaling_client_replacement() {
    let (old, new) = (MemoryRelay::new("old"), MemoryRelay::new("new"));
    let me = on(1, &[&old]).await;
    let (a, b) = (on(2, &[&old]).await, on(3, &[&new]).await);
    let (with_a, with_b) = tokio::try_join!(me.session(id(2)), me.session(id(3))).unwrap();
    linked(&with_a).await;
    let ((_of_a, mut from_a), (_of_b, from_b)) = (counting(&with_a), counting(&with_b));
    // What A says has reached the old server, and is on its way to me when I leave.
    let on_the_way = old.faults().hold(id(1), Way::FromRelay);
    let to_me = a.session(id(1)).await.unwrap();
    let receipt = to_me.send(CHAT, "by the old").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    me.switch_relay(Arc::new(new.clone()));
    for session in [&with_a, &with_b] {
        until(session, "the new server alone", |state| {
            state.links.len() == 1 && state.links[0].address == "memory:new"
        })
        .await;
    }
    counted(&old, "me to leave", |counts| counts.connected == 1).await;
    drop(on_the_way);
    let to_a = with_a.send(CHAT, "by the new").await.unwrap();
    soon("custody", to_a.custody()).await.unwrap();
    let taken = new.counts().borrow().taken;
    assert!(taken >= 1, "it went to the wrong server");
    let from_b_to_me = b.session(id(1)).await.unwrap();
    from_b_to_me.send(CHAT, "from b").await.unwrap();
    assert_eq!(take(&mut with_b.inbox(CHAT).unwrap()).await, "from b");
    assert_eq!((from_a.borrow().1, from_b.borrow().1), (0, 1));
    // A follows, and everything is there once.
    a.switch_relay(Arc::new(new.clone()));
    assert_eq!(take(&mut to_me.inbox(CHAT).unwrap()).await, "by the new");
    assert_eq!(take(&mut with_a.inbox(CHAT).unwrap()).await, "by the old");
    let heard = from_a.wait_for(|(_, messages)| *messages == 1);
    soon("the event", heard).await.unwrap();
    assert_eq!((with_a.subscriptions(), with_b.subscriptions()), (1, 1));
}

/// What a callback saw that can't be: a link named by the event that the state contradicts.
#[derive(Default)]
struct Watching {
    up: Vec<Generation>,
    wrong: Vec<String>,
}

/// Scenario 4: callbacks come while the connection is taken away under them. None finds a state that
/// is taken apart half, none is lost and none is configured twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flag_reset_timing() {
    const MESSAGES: usize = 400;
    let relay = relay().await;
    let address = url(&relay);
    let me = node(1, &relay).await;
    let session = me.session(id(2)).await.unwrap();
    let watching: Arc<Mutex<Watching>> = Arc::default();
    let (inner, own, of_me) = (watching.clone(), session.clone(), me.clone());
    let subscription = session.on_event(move |event, state| {
        let mut watching = inner.lock().unwrap();
        // It asks the node and the session, as apps do in callbacks.
        let _ = (
            of_me.relays(),
            own.subscriptions(),
            own.state().borrow().links.len(),
        );
        let has = |of: &Generation| state.links.iter().any(|link| link.generation == *of);
        match event {
            SessionEvent::LinkUp { generation } => {
                if !has(generation) || watching.up.contains(generation) {
                    watching.wrong.push(format!("{event:?} with {state:?}"));
                }
                watching.up.push(*generation);
            }
            SessionEvent::LinkDown { generation } => {
                if has(generation) || !watching.up.contains(generation) {
                    watching.wrong.push(format!("{event:?} with {state:?}"));
                }
                watching.up.retain(|up| up != generation);
            }
            _ => {}
        }
    });
    let peer: Node = node(2, &relay).await;
    let to_me = peer.session(id(1)).await.unwrap();
    let sending = tokio::spawn(async move {
        for n in 0..MESSAGES {
            to_me.send(CHAT, format!("{n}")).await?;
        }
        Ok::<_, Error>(to_me)
    });
    let mut inbox = session.inbox(CHAT).unwrap();
    for n in 0..MESSAGES {
        assert_eq!(take(&mut inbox).await, format!("{n}"));
        if n % 20 == 10 {
            // Taken away and given again while messages flow.
            assert!(me.remove_relay(&address));
            unlinked(&session).await;
            me.use_relay(Arc::new(way(&relay)));
        }
    }
    soon("the sender", sending).await.unwrap().unwrap();
    linked(&session).await;
    assert_eq!(session.subscriptions(), 1);
    assert!(me.remove_relay(&address));
    unlinked(&session).await;
    me.shutdown().await.unwrap();
    let watching = watching.lock().unwrap();
    assert!(watching.wrong.is_empty(), "{:?}", watching.wrong);
    assert!(watching.up.is_empty(), "{:?}", watching.up);
    drop(subscription);
}
