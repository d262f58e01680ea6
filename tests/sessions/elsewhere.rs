//! Peers that use different relays: each is written to where it reads.

use std::time::Duration;

use outlive::{Identity, Node, RelayTransport};
use outlive_storage::MemoryStore;
use outlive_transports::{MemoryRelay, WebSocketRelay};

use crate::far::{Far, among, among_over, hear, learns, say, say_and_leave};
use crate::world::{CHAT, comes_true, id, relay, soon, until, url, way};

#[tokio::test]
async fn two_that_read_at_different_relays_talk() {
    let (one, two) = (relay().await, relay().await);
    let stores = [(); 2].map(|()| MemoryStore::new());
    let a = Far::start(1, &stores[0], &one).await;
    let b = Far::start(2, &stores[1], &two).await;
    let to_b = a.session(2).await;
    to_b.mailboxes_at([url(&two)]).await.expect("kept");
    say(&to_b, "hello").await;
    let to_a = b.session(1).await;
    hear(&to_a, "hello").await;
    learns(&to_a, &one).await;
    say(&to_a, "good day").await;
    hear(&to_b, "good day").await;
    learns(&to_b, &two).await;
    until(&to_a, "b writes to where a reads", |state| {
        state
            .carrier()
            .is_some_and(|link| link.address == url(&one))
    })
    .await;
    until(&to_b, "a knows that b is there", |state| {
        state.peer_online == Some(true)
    })
    .await;
    assert_eq!(b.asked(), [url(&one)]);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn who_is_away_finds_what_was_left_where_it_reads() {
    let (one, two) = (relay().await, relay().await);
    let stores = [(); 2].map(|()| MemoryStore::new());
    let a = Far::start(1, &stores[0], &one).await;
    a.connected().await;
    let to_b = a.session(2).await;
    to_b.mailboxes_at([url(&two)]).await.expect("kept");
    let receipt = to_b.send(CHAT, "are you there?").await.expect("queued");
    soon("custody", receipt.custody())
        .await
        .expect("it is kept");
    drop((receipt, to_b));
    a.stop().await;

    let b = Far::start(2, &stores[1], &two).await;
    let to_a = b.session(1).await;
    hear(&to_a, "are you there?").await;
    learns(&to_a, &one).await;
    let receipt = to_a.send(CHAT, "now I am").await.expect("queued");
    soon("custody", receipt.custody())
        .await
        .expect("it is kept");
    until(&to_a, "it is left where a reads", |state| {
        state
            .carrier()
            .is_some_and(|link| link.address == url(&one))
    })
    .await;
    drop((receipt, to_a));
    b.stop().await;

    // It reads at its own relay alone.
    let a = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(stores[0].faults().crash())
        .transport(way(&one))
        .start();
    let a = a.await.expect("a node");
    hear(&a.session(id(2)).await.expect("a session"), "now I am").await;
    a.shutdown().await.expect("a good end");
}

#[tokio::test]
async fn nothing_is_dialed_on_the_word_of_a_stranger() {
    let (one, two) = (relay().await, relay().await);
    let stores = [(); 2].map(|()| MemoryStore::new());
    let a = Far::start(1, &stores[0], &one).await;
    let b = Far::start(2, &stores[1], &two).await;
    let to_b = a.session(2).await;
    to_b.mailboxes_at([url(&two)]).await.expect("kept");
    say(&to_b, "hello").await;
    assert_eq!(
        soon("the stranger", b.node.next_arrival())
            .await
            .expect("it lives"),
        id(1)
    );
    // What it says is known, and nothing is done about it.
    comes_true("its word has come", async || {
        !to_b.state().borrow().outstanding
    })
    .await;
    assert_eq!(b.asked(), Vec::<String>::new());
    assert_eq!(b.node.relays_elsewhere().len(), 0);
    let to_a = b.session(1).await;
    say(&to_a, "good day").await;
    assert_eq!(b.asked(), [url(&one)]);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn who_hides_from_its_peer_dials_no_relay_that_the_peer_names() {
    let (one, two) = (relay().await, relay().await);
    let stores = [(); 2].map(|()| MemoryStore::new());
    let a = Far::start(1, &stores[0], &one).await;
    let b = Far::start(2, &stores[1], &two).await;
    let to_a = b.session(1).await;
    to_a.allow_direct(false).await.expect("kept");
    let to_b = a.session(2).await;
    to_b.mailboxes_at([url(&two)]).await.expect("kept");
    say(&to_b, "hello").await;
    hear(&to_a, "hello").await;
    learns(&to_a, &one).await;
    // As long as the other is at its relay, it can be answered there.
    say(&to_a, "good day").await;
    assert_eq!(b.asked(), Vec::<String>::new());
    to_a.mailboxes_at([url(&one)]).await.expect("kept");
    until(&to_a, "what the app names is dialed", |state| {
        state
            .carrier()
            .is_some_and(|link| link.address == url(&one))
    })
    .await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn one_relay_under_two_addresses_is_used_once() {
    let relay = relay().await;
    let stores = [(); 2].map(|()| MemoryStore::new());
    let other = format!("ws://localhost:{}", relay.local_addr().port());
    let a = Far::start(1, &stores[0], &relay).await;
    let b = Far::at(
        2,
        &stores[1],
        WebSocketRelay::new(&other).expect("an address"),
    )
    .await;
    let (to_b, to_a) = (a.session(2).await, b.session(1).await);
    say(&to_b, "hello").await;
    hear(&to_a, "hello").await;
    say(&to_a, "good day").await;
    hear(&to_b, "good day").await;
    comes_true("each knows the other's name for it", async || {
        to_b.mailboxes().await.expect("read") == [other.clone()]
            && to_a.mailboxes().await.expect("read") == [url(&relay)]
    })
    .await;
    say(&to_b, "still here").await;
    assert_eq!([a.asked(), b.asked()], [Vec::<String>::new(), Vec::new()]);
    // One that only the app names is found out about, and then left alone.
    let to_c = a.session(3).await;
    to_c.mailboxes_at([other.clone()]).await.expect("kept");
    comes_true("it is given up", async || {
        a.asked() == [other.clone()] && a.node.relays_elsewhere().is_empty()
    })
    .await;
    say(&to_b, "and again").await;
    let receipt = to_c.send(CHAT, "hello").await.expect("queued");
    soon("custody", receipt.custody())
        .await
        .expect("it is kept where c reads");
    let c = Far::start(3, &MemoryStore::new(), &relay).await;
    hear(&c.session(1).await, "hello").await;
    for far in [a, b, c] {
        far.stop().await;
    }
}

#[tokio::test]
async fn a_relay_of_peers_is_signed_in_to_once_however_many_addresses_it_has() {
    let (one, two) = (relay().await, relay().await);
    let a = Far::start(1, &MemoryStore::new(), &one).await;
    let port = two.local_addr().port();
    let names = [
        url(&two),
        format!("ws://localhost:{port}"),
        format!("ws://127.0.0.1:{port}/"),
    ];
    let mut all = Vec::new();
    for (n, name) in (2..).zip(&names) {
        let peer = Far::start(n, &MemoryStore::new(), &two).await;
        let session = a.session(n).await;
        session.mailboxes_at([name.clone()]).await.expect("kept");
        all.push((peer, session));
    }
    for (_, session) in &all {
        say(session, "hello").await;
    }
    let left = async || a.node.relays_elsewhere().len() == 1;
    comes_true("one of them is left", left).await;
    for (_, session) in &all {
        say(session, "and again").await;
        until(session, "all go over it", |state| {
            let carrier = state.carrier();
            carrier.is_some_and(|link| names.contains(&link.address))
        })
        .await;
    }
    a.stop().await;
    for (peer, _) in all {
        peer.stop().await;
    }
}

#[tokio::test]
async fn a_relay_of_a_peer_is_let_go_of_with_the_last_session_that_needs_it() {
    let (one, two) = (relay().await, relay().await);
    let stores = [(); 2].map(|()| MemoryStore::new());
    let a = Far::start(1, &stores[0], &one).await;
    let to_b = a.session(2).await;
    to_b.mailboxes_at([url(&two)]).await.expect("kept");
    until(&to_b, "it is reached", |state| {
        state.links.iter().any(|link| link.address == url(&two))
    })
    .await;
    drop(to_b);
    comes_true("it is let go of", async || {
        a.node.relays_elsewhere().is_empty()
    })
    .await;
    a.stop().await;
}

#[tokio::test]
async fn a_text_that_can_be_no_address_is_refused() {
    let one = relay().await;
    let a = Far::start(1, &MemoryStore::new(), &one).await;
    let to_b = a.session(2).await;
    for wrong in ["", "wss://relay.example/\n", &"a".repeat(300)] {
        let named = to_b.mailboxes_at([wrong]).await;
        assert!(matches!(named, Err(outlive::Error::RelayAddress(of)) if of == wrong));
    }
    assert_eq!(to_b.mailboxes().await.expect("read"), Vec::<String>::new());
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_for_a_peer_whose_relay_is_gone_is_left_at_ours_after_a_while() {
    let [ours, gone] = ["ours", "gone"].map(MemoryRelay::new);
    let down = gone.faults().down();
    let (a, _) = among(1, &[&ours, &gone]).await;
    let to_b = a.session(id(2)).await.expect("a session");
    to_b.mailboxes_at([gone.address()]).await.expect("kept");
    let receipt = to_b.send(CHAT, "hello").await.expect("queued");
    // How long it waits is what is staged.
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(to_b.state().borrow().carrier, None);
    // The next try after ten minutes is at most half a minute later.
    tokio::time::sleep(Duration::from_secs(40)).await;
    until(&to_b, "it is left at ours", |state| state.carrier.is_some()).await;
    // It says nothing of where it reads.
    let b = Node::builder()
        .identity(Identity::from_seed([2; 32]))
        .store(MemoryStore::new())
        .transport(ours.clone())
        .start();
    let b = b.await.expect("a node");
    let to_a = b.session(id(1)).await.expect("a session");
    hear(&to_a, "hello").await;
    soon("its arrival", receipt.delivered())
        .await
        .expect("delivered");
    drop(down);
    tokio::time::sleep(Duration::from_secs(30)).await;
    until(&to_b, "it is reached again", |state| {
        state
            .carrier()
            .is_some_and(|link| link.address == gone.address())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn two_that_are_never_there_at_once_hear_that_their_messages_arrived() {
    let [one, two] = ["one", "two"].map(MemoryRelay::new);
    let stores = [(); 2].map(|()| MemoryStore::new());
    let (a, _) = among_over(1, stores[0].clone(), &[&one, &two]).await;
    let (b, _) = among_over(2, stores[1].clone(), &[&two, &one]).await;
    let (to_b, to_a) = (a.session(id(2)).await, b.session(id(1)).await);
    let (to_b, to_a) = (to_b.expect("a session"), to_a.expect("a session"));
    to_b.mailboxes_at([two.address()]).await.expect("kept");
    say(&to_b, "hello").await;
    hear(&to_a, "hello").await;
    say(&to_a, "good day").await;
    hear(&to_b, "good day").await;
    for session in [&to_a, &to_b] {
        until(session, "nothing is outstanding", |state| {
            !state.outstanding
        })
        .await;
    }
    drop(to_a);
    b.shutdown().await.expect("a good end");
    say_and_leave(&to_b, "are you there?").await;
    drop(to_b);
    a.shutdown().await.expect("a good end");

    // Nobody here has anything to say but that it came, and the way back comes up behind it.
    let held = one.faults().hold_dialing();
    let again = stores.each_ref().map(|store| store.faults().crash());
    let (b, asked) = among_over(2, again[1].clone(), &[&two, &one]).await;
    let arrived = soon("its peer", b.next_arrival()).await;
    assert_eq!(arrived.expect("it lives"), id(1));
    let is_asked = async || !asked.lock().expect("no panic").is_empty();
    comes_true("the other is dialed", is_asked).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(held);
    comes_true("it sleeps", async || b.sessions_awake() == 0).await;
    b.shutdown().await.expect("a good end");

    let waits = outlive::queued_for(&again[0], id(2)).await;
    assert_eq!(waits.expect("counted").messages, 1);
    let (a, _) = among_over(1, again[0].clone(), &[&one, &two]).await;
    let to_b = a.session(id(2)).await.expect("a session");
    comes_true("it is delivered", async || {
        a.queued(id(2)).await.expect("counted").messages == 0
    })
    .await;
    drop(to_b);
}
