//! Callbacks belong to a session, not to a connection (I6): each peer has its own, none is lost or left
//! behind over reconnects and changes of the relay, and none is entered after it was dropped. How they
//! fare when several things happen at once is in `scenarios`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use outlive::{Error, NetworkMonitor, Node, SessionEvent, Subscription, SubscriptionSet};
use outlive_storage::MemoryStore;

use tokio::sync::watch;

use crate::world::{CHAT, PATIENCE, id, node, relay, soon, take, until, url, way};

/// Counts the messages a callback hears of.
fn counting(session: &outlive::Session) -> (Subscription, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let inner = count.clone();
    let subscription = session.on_event(move |event, _| {
        if matches!(event, SessionEvent::Message { .. }) {
            inner.fetch_add(1, Ordering::SeqCst);
        }
    });
    (subscription, count)
}

async fn with_network(n: u8, relay: &outlive_relay::Relay) -> (Node, NetworkMonitor) {
    let network = NetworkMonitor::new();
    let node = Node::builder()
        .identity(outlive::Identity::from_seed([n; 32]))
        .store(MemoryStore::new())
        .transport(way(relay))
        .network(network.clone())
        .start()
        .await
        .unwrap();
    (node, network)
}

#[tokio::test]
async fn each_peer_gets_its_own_callback() {
    let relay = relay().await;
    let me = node(1, &relay).await;
    let (a, b) = (node(2, &relay).await, node(3, &relay).await);
    let (with_a, with_b) =
        tokio::try_join!(me.session(id(2)), me.session(id(3))).expect("two sessions at once");
    let (_of_a, from_a) = counting(&with_a);
    let (_of_b, from_b) = counting(&with_b);
    a.session(id(1))
        .await
        .unwrap()
        .send(CHAT, "from a")
        .await
        .unwrap();
    let (mut inbox_a, mut inbox_b) = (with_a.inbox(CHAT).unwrap(), with_b.inbox(CHAT).unwrap());
    assert_eq!(take(&mut inbox_a).await, "from a");
    assert_eq!(
        (from_a.load(Ordering::SeqCst), from_b.load(Ordering::SeqCst)),
        (1, 0)
    );
    b.session(id(1))
        .await
        .unwrap()
        .send(CHAT, "from b")
        .await
        .unwrap();
    assert_eq!(take(&mut inbox_b).await, "from b");
    assert_eq!(
        (from_a.load(Ordering::SeqCst), from_b.load(Ordering::SeqCst)),
        (1, 1)
    );
}

#[tokio::test]
async fn callback_is_removed_when_peer_disconnects() {
    let relay = relay().await;
    let (me, a) = (node(1, &relay).await, node(2, &relay).await);
    let session = me.session(id(2)).await.unwrap();
    let (_subscription, heard) = counting(&session);
    let handle = session.clone();
    assert_eq!(handle.subscriptions(), 1);
    session.close().await.unwrap();
    assert_eq!(handle.subscriptions(), 0);
    a.session(id(1))
        .await
        .unwrap()
        .send(CHAT, "late")
        .await
        .unwrap();
    let again = me.session(id(2)).await.unwrap();
    assert_eq!(take(&mut again.inbox(CHAT).unwrap()).await, "late");
    assert_eq!(heard.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn handles_rapid_reconnection_without_callback_leak() {
    let relay = relay().await;
    let (me, network) = with_network(1, &relay).await;
    let a = node(2, &relay).await;
    let session = me.session(id(2)).await.unwrap();
    let (_subscription, heard) = counting(&session);
    for _ in 0..10 {
        until(&session, "a link", |state| !state.links.is_empty()).await;
        network.down();
        until(&session, "the cut", |state| state.links.is_empty()).await;
        network.up();
        assert_eq!(session.subscriptions(), 1);
    }
    a.session(id(1))
        .await
        .unwrap()
        .send(CHAT, "still")
        .await
        .unwrap();
    assert_eq!(take(&mut session.inbox(CHAT).unwrap()).await, "still");
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    assert_eq!(session.state().borrow().links.len(), 1);
}

#[tokio::test]
async fn with_three_peers_at_once_one_leaves_and_the_others_go_on() {
    let relay = relay().await;
    let me = node(1, &relay).await;
    // All of them connect at the same time, on both sides.
    let connect = async |n: u8| {
        let (mine, peer) = tokio::join!(me.session(id(n)), node(n, &relay));
        let theirs = peer.session(id(1)).await?;
        let inbox = mine?.inbox(CHAT)?;
        theirs.send(CHAT, format!("hello from {n}")).await?;
        Ok::<_, Error>((n, peer, inbox))
    };
    let connected = tokio::try_join!(connect(2), connect(3), connect(4)).unwrap();
    let mut peers = <[_; 3]>::from(connected);
    for (n, _, inbox) in &mut peers {
        assert_eq!(take(inbox).await, format!("hello from {n}"));
    }
    let [(_, leaves, _), stays, stays_too] = peers;
    leaves.shutdown().await.unwrap();
    for (_, peer, mut inbox) in [stays, stays_too] {
        let session = peer.session(id(1)).await.unwrap();
        session.send(CHAT, "still here").await.unwrap();
        assert_eq!(take(&mut inbox).await, "still here");
        let back = me.session(peer.peer_id()).await.unwrap();
        let receipt = back.send(CHAT, "good").await.unwrap();
        soon("delivery", receipt.delivered()).await.unwrap();
    }
}

#[tokio::test]
async fn after_a_server_switch_nothing_reaches_the_old_one() {
    let (old, new) = (relay().await, relay().await);
    let (me, a) = (node(1, &old).await, node(2, &old).await);
    let (mine, theirs) = (
        me.session(id(2)).await.unwrap(),
        a.session(id(1)).await.unwrap(),
    );
    let (_subscription, heard) = counting(&mine);
    theirs.send(CHAT, "over the old").await.unwrap();
    let mut inbox = mine.inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "over the old");

    me.switch_relay(Arc::new(way(&new)));
    let address = url(&new);
    until(&mine, "the new relay", |state| {
        !state.links.is_empty() && state.links.iter().all(|link| link.address == address)
    })
    .await;
    mine.send(CHAT, "to the new").await.unwrap();
    // The old one is up still; what it keeps for the peer must not be from after the switch.
    let mut their_inbox = theirs.inbox(CHAT).unwrap();
    a.switch_relay(Arc::new(way(&new)));
    assert_eq!(take(&mut their_inbox).await, "to the new");
    theirs.send(CHAT, "over the new").await.unwrap();
    assert_eq!(take(&mut inbox).await, "over the new");
    assert_eq!(heard.load(Ordering::SeqCst), 2);

    // Somebody new is written to, in first words that any store of theirs can open. The old relay
    // never had them: what comes over it first is what was sent over it later.
    let first_words = me.session(id(5)).await.unwrap();
    let receipt = first_words.send(CHAT, "by the new").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    let elsewhere = node(1, &old).await;
    let marker = elsewhere.session(id(5)).await.unwrap();
    let receipt = marker.send(CHAT, "by the old").await.unwrap();
    soon("custody", receipt.custody()).await.unwrap();
    let late = node(5, &old).await;
    let mut inbox = late.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "by the old");
    late.switch_relay(Arc::new(way(&new)));
    let delivery = soon("the first words", inbox.next()).await.unwrap();
    assert_eq!(delivery.payload(), "by the new");
}

/// What a callback heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    ups: usize,
    downs: usize,
    messages: usize,
}

/// A subscription, what its callback heard, and what had happened before it.
struct Tallied {
    _subscription: Subscription,
    heard: watch::Receiver<Tally>,
    before: Tally,
}

impl Tallied {
    fn new(session: &outlive::Session, before: Tally) -> Self {
        let (counting, heard) = watch::channel(before);
        let subscription = session.on_event(move |event, _| {
            counting.send_modify(|tally| match event {
                SessionEvent::LinkUp { .. } => tally.ups += 1,
                SessionEvent::LinkDown { .. } => tally.downs += 1,
                SessionEvent::Message { .. } => tally.messages += 1,
                _ => {}
            });
        });
        Self {
            _subscription: subscription,
            heard,
            before,
        }
    }

    /// Waits until the callback has heard all that happened, and sees that it heard no more.
    async fn heard_all(&mut self, of: Tally) {
        let all = |heard: &Tally| {
            heard.ups >= of.ups && heard.downs >= of.downs && heard.messages >= of.messages
        };
        let waited = tokio::time::timeout(PATIENCE, self.heard.wait_for(all))
            .await
            .is_ok();
        let heard = *self.heard.borrow();
        assert!(
            waited,
            "it missed {of:?} since {:?}: {heard:?}",
            self.before
        );
        assert_eq!(heard, of, "subscribed at {:?}", self.before);
    }
}

#[tokio::test]
async fn registered_callbacks_equal_active_subscriptions_through_1000_connects() {
    let relay = relay().await;
    let (me, network) = with_network(1, &relay).await;
    let (mut sessions, mut peers, mut active) = (Vec::new(), Vec::new(), Vec::new());
    let mut happened = [Tally::default(); 3];
    network.down();
    for n in 2..5 {
        let session = me.session(id(n)).await.unwrap();
        let two = [(); 2].map(|()| Tallied::new(&session, Tally::default()));
        active.push(Vec::from(two));
        sessions.push(session);
        let peer = node(n, &relay).await;
        peers.push((peer.session(id(1)).await.unwrap(), peer));
    }
    for round in 0..1_000usize {
        network.up();
        // Each callback that is registered hears of each connect, each message and each cut, once.
        let which = round % sessions.len();
        let (peer, _) = &peers[which];
        peer.send(CHAT, format!("{round}")).await.unwrap();
        for happened in &mut happened {
            happened.ups += 1;
        }
        happened[which].messages += 1;
        for (active, happened) in active.iter_mut().zip(happened) {
            for callback in active {
                callback.heard_all(happened).await;
            }
        }
        network.down();
        for (active, happened) in active.iter_mut().zip(&mut happened) {
            happened.downs += 1;
            for callback in active {
                callback.heard_all(*happened).await;
            }
        }
        // One subscription comes, another goes.
        active[which].push(Tallied::new(&sessions[which], happened[which]));
        drop(active[which].remove(0));
        for (session, active) in sessions.iter().zip(&active) {
            assert_eq!(session.subscriptions(), active.len());
        }
    }
    network.up();
    for (n, session) in sessions.iter().enumerate() {
        let mut inbox = session.inbox(CHAT).unwrap();
        for round in (n..1_000).step_by(sessions.len()) {
            assert_eq!(take(&mut inbox).await, format!("{round}"));
        }
    }
}

#[tokio::test]
async fn no_event_enters_a_callback_whose_subscription_was_dropped() {
    let relay = relay().await;
    let (me, a) = (node(1, &relay).await, node(2, &relay).await);
    let session = me.session(id(2)).await.unwrap();
    let theirs = a.session(id(1)).await.unwrap();
    let mut inbox = session.inbox(CHAT).unwrap();
    for n in 0..50 {
        let (subscription, heard) = counting(&session);
        theirs.send(CHAT, format!("{n}")).await.unwrap();
        drop(subscription);
        let at_drop = heard.load(Ordering::SeqCst);
        assert_eq!(take(&mut inbox).await, format!("{n}"));
        assert_eq!(heard.load(Ordering::SeqCst), at_drop);
    }
}

#[tokio::test]
async fn a_callback_may_drop_its_own_subscription() {
    let relay = relay().await;
    let (me, a) = (node(1, &relay).await, node(2, &relay).await);
    let session = me.session(id(2)).await.unwrap();
    let own: Arc<Mutex<Option<Subscription>>> = Arc::default();
    let (inner, count) = (own.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    let subscription = session.on_event(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        inner.lock().unwrap().take();
    });
    *own.lock().unwrap() = Some(subscription);
    let theirs = a.session(id(1)).await.unwrap();
    let mut inbox = session.inbox(CHAT).unwrap();
    let before = count.load(Ordering::SeqCst);
    for n in 0..3 {
        theirs.send(CHAT, format!("{n}")).await.unwrap();
        take(&mut inbox).await;
    }
    assert!(count.load(Ordering::SeqCst) <= before + 1);
}

/// Runs on a thread of its own what may never end.
fn elsewhere(what: &str, work: impl Future<Output = ()> + Send + 'static) {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(work);
        tell.send(()).expect("the test waits");
    });
    let done = told.recv_timeout(PATIENCE);
    assert!(done.is_ok(), "waited too long for {what}");
}

/// Registers a callback that owns its own subscription.
fn owned_by_itself(session: &outlive::Session) {
    let own: Arc<Mutex<Option<Subscription>>> = Arc::default();
    let inside = own.clone();
    let subscription = session.on_event(move |_, _| assert!(!inside.is_poisoned()));
    *own.lock().unwrap() = Some(subscription);
}

#[test]
fn a_callback_that_owns_its_own_subscription_holds_up_no_end() {
    elsewhere("the ends", async {
        let relay = outlive_transports::MemoryRelay::new("relay");
        let (_alice, bob, to_bob, to_alice) = crate::scene::pair(&relay).await;
        owned_by_itself(&to_bob);
        to_bob.close().await.unwrap();
        owned_by_itself(&to_alice);
        bob.shutdown().await.unwrap();
    });
}

#[test]
fn a_callback_on_a_session_that_is_over_may_own_other_subscriptions() {
    elsewhere("the subscription", async {
        let relay = outlive_transports::MemoryRelay::new("relay");
        let (_alice, _bob, to_bob, _) = crate::scene::pair(&relay).await;
        let over = to_bob.clone();
        to_bob.close().await.unwrap();
        let owned = over.on_event(|_, _| {});
        let late = over.on_event(move |_, _| assert!(format!("{owned:?}").is_empty()));
        assert_eq!(over.subscriptions(), 0);
        drop(late);
    });
}

#[tokio::test]
async fn a_set_ends_all_its_subscriptions_at_once() {
    let relay = relay().await;
    let me = node(1, &relay).await;
    let session = me.session(id(2)).await.unwrap();
    let mut set = SubscriptionSet::new();
    for _ in 0..5 {
        set.add(session.on_event(|_, _| {}));
    }
    assert_eq!((set.len(), session.subscriptions()), (5, 5));
    drop(set);
    assert_eq!(session.subscriptions(), 0);
}

#[tokio::test]
async fn a_late_subscriber_sees_the_present_state() {
    let relay = relay().await;
    let (me, a) = (node(1, &relay).await, node(2, &relay).await);
    let session = me.session(id(2)).await.unwrap();
    a.session(id(1)).await.unwrap();
    until(&session, "the peer", |state| {
        state.peer_online == Some(true)
    })
    .await;
    assert_eq!(session.state().borrow().peer_online, Some(true));
    a.shutdown().await.unwrap();
    until(&session, "the peer to leave", |state| {
        state.peer_online == Some(false)
    })
    .await;
}

#[tokio::test]
async fn a_volatile_channel_is_heard_only_by_who_listens_and_survives_reconnects() {
    const TYPING: outlive::ChannelId = outlive::ChannelId(20);
    let relay = relay().await;
    let (me, network) = with_network(1, &relay).await;
    let a = node(2, &relay).await;
    let (mine, theirs) = (
        me.session(id(2)).await.unwrap(),
        a.session(id(1)).await.unwrap(),
    );
    until(&theirs, "the peer", |state| state.peer_online == Some(true)).await;
    assert!(!theirs.send_volatile(TYPING, "nobody").await.unwrap());
    let mut heard = mine.events(64);
    let mut told = theirs.events(64);
    mine.listen(TYPING).await.unwrap();
    for round in 0..3 {
        let listening = async {
            while let Some((event, _)) = told.next().await {
                if matches!(
                    event,
                    SessionEvent::Listening {
                        listening: true,
                        ..
                    }
                ) {
                    return;
                }
            }
        };
        if round == 0 {
            soon("the peer to listen", listening).await;
        }
        assert!(
            theirs
                .send_volatile(TYPING, format!("{round}"))
                .await
                .unwrap()
        );
        let payload = async {
            loop {
                if let Some((SessionEvent::Volatile { payload, .. }, _)) = heard.next().await {
                    return payload;
                }
            }
        };
        assert_eq!(soon("typing", payload).await, format!("{round}"));
        network.down();
        until(&mine, "the cut", |state| state.links.is_empty()).await;
        network.up();
        until(&theirs, "the peer back", |state| {
            state.peer_online == Some(true)
        })
        .await;
        until(&mine, "the link", |state| !state.links.is_empty()).await;
    }
}

#[tokio::test]
async fn whoever_waits_on_a_session_hears_that_it_was_closed() {
    let relay = relay().await;
    let me = node(1, &relay).await;
    let session = me.session(id(2)).await.unwrap();
    let (other, again) = (session.clone(), session.clone());
    let mut inbox = session.inbox(CHAT).unwrap();
    let receipt = session.send(CHAT, "kept").await.unwrap();
    let closing = async {
        soon("custody", receipt.custody()).await.unwrap();
        again.close().await.unwrap();
    };
    let (delivered, arrived, ()) = soon("the end", async {
        tokio::join!(receipt.delivered(), inbox.next(), closing)
    })
    .await;
    assert!(matches!(delivered, Err(Error::Closed)));
    assert!(matches!(arrived, Err(Error::Closed)));
    assert!(matches!(other.send(CHAT, "late").await, Err(Error::Closed)));
    assert!(matches!(other.close().await, Err(Error::Closed)));

    let anew = me.session(id(2)).await.unwrap();
    anew.send(CHAT, "new").await.unwrap();
    let a = node(2, &relay).await;
    let mut inbox = a.session(id(1)).await.unwrap().inbox(CHAT).unwrap();
    assert_eq!(take(&mut inbox).await, "kept");
    assert_eq!(take(&mut inbox).await, "new");
}

#[tokio::test]
async fn a_callback_that_panics_ends_and_nothing_else_does() {
    let relay = outlive_transports::MemoryRelay::new("relay");
    let (_alice, _bob, to_bob, to_alice) = crate::scene::pair(&relay).await;
    let links = to_alice.state().borrow().links.clone();
    let entered = Arc::new(AtomicUsize::new(0));
    let inside = entered.clone();
    let panicking = to_alice.on_event(move |event, _| {
        if matches!(event, SessionEvent::Message { .. }) {
            inside.fetch_add(1, Ordering::SeqCst);
            panic!("as asked");
        }
    });
    let mut events = to_alice.events(64);
    let mut inbox = to_alice.inbox(CHAT).unwrap();
    for text in ["first", "second"] {
        to_bob.send(CHAT, text).await.unwrap();
        assert_eq!(take(&mut inbox).await, text);
        let told = async {
            while !matches!(events.next().await, Some((SessionEvent::Message { .. }, _))) {}
        };
        soon("word of it", told).await;
    }
    assert_eq!(entered.load(Ordering::SeqCst), 1);
    assert_eq!(to_alice.subscriptions(), 1);
    assert_eq!(to_alice.state().borrow().links, links);
    drop(panicking);
    assert_eq!(to_alice.subscriptions(), 1);
}
