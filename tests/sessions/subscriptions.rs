//! Subscriptions that end: dropped from outside or from within, with a set, or by a panic.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use outlive::{SessionEvent, Subscription, SubscriptionSet};

use crate::callbacks::counting;
use crate::world::{CHAT, PATIENCE, id, node, relay, soon, take};

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
    // As many as there may be.
    let mut events = to_alice.events(usize::MAX);
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
