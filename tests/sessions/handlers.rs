//! What answers requests: one handler of a session or node, a bounded number of times at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use outlive::{Error, HandlerError, RequestError, SESSION_HANDLERS};

use crate::requests::{ask, echo, slow, until_inbox};
use crate::world::{id, node, relay, soon};

#[tokio::test]
async fn a_handlers_failure_is_told_in_its_own_words() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let _answering = bob
        .on_request(|request| async move {
            match &request.payload()[..] {
                b"number" => {
                    let number: u32 = "seven".parse()?;
                    Ok(number.to_string().into())
                }
                b"long" => Err(HandlerError::new("x".repeat(100_000))),
                b"panic" => panic!("as asked"),
                b"large" => Ok(vec![0; outlive::limits::MESSAGE_BYTES].into()),
                _ => Ok("fine".into()),
            }
        })
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let failed = async |question: &str| match ask(&session, question).await {
        Err(RequestError::Failed(text)) => text,
        other => panic!("{other:?} is no failure"),
    };
    assert_eq!(failed("number").await, "invalid digit found in string");
    assert_eq!(failed("long").await.len(), outlive::limits::FAILURE_BYTES);
    assert_eq!(failed("panic").await, "the handler failed unexpectedly");
    assert!(failed("large").await.contains("too large"));
    assert_eq!(ask(&session, "and now").await.unwrap(), "fine");
    until_inbox(&bob, 1, (0, 5)).await;
    let too_large = session.request(vec![0; outlive::limits::MESSAGE_BYTES]);
    assert!(matches!(
        too_large.await,
        Err(RequestError::Session(Error::Send(
            outlive::SendError::TooLarge { .. }
        )))
    ));
}

#[tokio::test]
async fn a_second_handler_is_an_error_and_a_dropped_one_is_never_entered_again() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let theirs = bob.session(id(1)).await.unwrap();
    let dropped = Arc::new(AtomicBool::new(false));
    let inside = dropped.clone();
    let first = theirs
        .on_request(move |request| {
            assert!(!inside.load(Ordering::SeqCst), "entered after its end");
            echo(request)
        })
        .unwrap();
    let second = theirs.clone().on_request(echo);
    assert!(matches!(second, Err(Error::HandlerTaken)));
    let of_the_node = bob.on_request(echo).unwrap();
    assert!(matches!(bob.on_request(echo), Err(Error::HandlerTaken)));
    drop(of_the_node);
    let session = alice.session(id(2)).await.unwrap();
    assert_eq!(ask(&session, "first").await.unwrap(), "first");
    drop(first);
    dropped.store(true, Ordering::SeqCst);
    let waiting = tokio::spawn(async move { ask(&session, "second").await });
    until_inbox(&bob, 1, (1, 2)).await;
    let _second = theirs.on_request(echo).unwrap();
    let answer = soon("the answer", waiting).await.unwrap();
    assert_eq!(answer.unwrap(), "second");
}

#[tokio::test]
async fn a_thousand_requests_in_flight_are_answered_a_bounded_number_at_a_time() {
    const REQUESTS: usize = 1_000;
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let (at_work, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, peak) = (at_work.clone(), most.clone());
    let _answering = bob
        .on_request(move |request| {
            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(now, Ordering::SeqCst);
            let inside = inside.clone();
            async move {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                inside.fetch_sub(1, Ordering::SeqCst);
                echo(request).await
            }
        })
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let all = (0..REQUESTS).map(|n| {
        let session = session.clone();
        async move {
            let question = format!("{n}");
            assert_eq!(ask(&session, &question).await.unwrap(), question);
        }
    });
    soon("all answers", futures_util::future::join_all(all)).await;
    assert_eq!(session.requests_pending(), 0);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=SESSION_HANDLERS).contains(&most), "{most} at once");
    until_inbox(&alice, 2, (0, REQUESTS as u64)).await;
    until_inbox(&bob, 1, (0, REQUESTS as u64)).await;
}

#[tokio::test]
async fn handlers_of_a_node_are_bounded_over_all_sessions() {
    const PEERS: u8 = 10;
    let relay = relay().await;
    let bob = node(99, &relay).await;
    let (handler, mut asked, gate) = slow();
    let _answering = bob.on_request(handler).unwrap();
    let mut asking = tokio::task::JoinSet::new();
    let mut peers = Vec::new();
    for n in 1..=PEERS {
        let peer = node(n, &relay).await;
        let session = peer.session(id(99)).await.unwrap();
        for _ in 0..SESSION_HANDLERS {
            let session = session.clone();
            asking.spawn(async move { ask(&session, "hello").await });
        }
        peers.push(peer);
    }
    let all = usize::from(PEERS) * SESSION_HANDLERS;
    for _ in 0..outlive::NODE_HANDLERS {
        soon("a request", asked.recv()).await.unwrap();
    }
    for n in 1..=PEERS {
        let came = SESSION_HANDLERS as u64;
        until_inbox(&bob, n, (came, came)).await;
    }
    assert!(asked.try_recv().is_err(), "more than may be are at work");
    gate.add_permits(all);
    while let Some(answered) = soon("an answer", asking.join_next()).await {
        assert_eq!(answered.unwrap().unwrap(), "hello");
    }
}
