//! Callbacks belong to a session, not to a connection (I6): each peer has its own, none is lost or left
//! behind over reconnects and changes of the relay. How they fare when several things happen at once is
//! in `scenarios`, and how they end in `subscriptions`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outlive::{Error, SessionEvent, Subscription};
use tokio::sync::watch;

use crate::world::{
    CHAT, PATIENCE, id, node, node_and_network, relay, soon, take, until, url, way,
};

/// Counts the messages a callback hears of.
pub(crate) fn counting(session: &outlive::Session) -> (Subscription, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let inner = count.clone();
    let subscription = session.on_event(move |event, _| {
        if matches!(event, SessionEvent::Message { .. }) {
            inner.fetch_add(1, Ordering::SeqCst);
        }
    });
    (subscription, count)
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
    let (me, network) = node_and_network(1, &relay).await;
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
    let (me, network) = node_and_network(1, &relay).await;
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
    let (me, network) = node_and_network(1, &relay).await;
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
            assert!(!theirs.state().borrow().peer_listens.contains(&TYPING));
            soon("the peer to listen", listening).await;
        }
        assert!(
            theirs.state().borrow().peer_listens.contains(&TYPING),
            "for who asks late"
        );
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
