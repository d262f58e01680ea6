//! Requests and their answers, over real sockets. How they fare when a peer restarts is in
//! `asked_again`, what answers them in `handlers`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use outlive::{
    ChannelId, Error, HandlerError, Node, Request, RequestError, RequestId, Session, SessionEvent,
};
use outlive_storage::MemoryStore;
use tokio::sync::{Semaphore, mpsc};

use crate::misuse;
use crate::world::{comes_true, id, node, node_and_network, node_over, relay, soon, until, way};

/// Long enough for what is meant to be answered; a test that fails waits for it.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) async fn ask(session: &Session, payload: &str) -> Result<String, RequestError> {
    let asked = session.request_within(payload.to_owned(), SOON).await;
    asked.map(|answer| String::from_utf8_lossy(&answer).into_owned())
}

pub(crate) async fn echo(request: Request) -> Result<Bytes, HandlerError> {
    Ok(request.payload().clone())
}

pub(crate) type Answering = BoxFuture<'static, Result<Bytes, HandlerError>>;

pub(crate) type Handler = Box<dyn FnMut(Request) -> Answering + Send>;

/// A handler that says what it has in hand, and answers when it is let.
pub(crate) fn slow() -> (Handler, mpsc::UnboundedReceiver<Request>, Arc<Semaphore>) {
    let (tell, told) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let inside = gate.clone();
    let handler = move |request: Request| -> Answering {
        let (gate, payload) = (inside.clone(), request.payload().clone());
        // The test may be over.
        let _ = tell.send(request);
        Box::pin(async move {
            gate.acquire().await?.forget();
            Ok(payload)
        })
    };
    (Box::new(handler), told, gate)
}

/// Messages on the requests channel that a node has not committed, and how many ever came.
pub(crate) async fn inbox_of(node: &Node, peer: u8) -> (u64, u64) {
    let sessions = node.sessions(None, 100).await.unwrap();
    let session = sessions.iter().find(|session| session.peer == id(peer));
    let inbox = session.and_then(|session| session.record.inboxes.get(&ChannelId::REQUESTS));
    inbox.map_or((0, 0), |inbox| (inbox.messages, inbox.next.0))
}

pub(crate) async fn until_inbox(node: &Node, peer: u8, is: (u64, u64)) {
    comes_true("the requests inbox", async || {
        inbox_of(node, peer).await == is
    })
    .await;
}

#[tokio::test]
async fn a_request_is_answered_by_the_peers_handler() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let _answering = bob
        .on_request(|request| async move {
            let text = String::from_utf8(request.payload().to_vec())?;
            Ok(format!("{text} from {}", request.from().short()).into())
        })
        .unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let answer = ask(&session, "hello").await.unwrap();
    assert_eq!(answer, format!("hello from {}", id(1).short()));
    let large = Bytes::from(vec![7; 100_000]);
    // The session's own handler goes before that of the node.
    let theirs = bob.session(id(1)).await.unwrap();
    let own = theirs.on_request(echo).unwrap();
    assert_eq!(session.request(large.clone()).await.unwrap(), large);
    drop(own);
    assert!(ask(&session, "again").await.unwrap().starts_with("again f"));
    until_inbox(&bob, 1, (0, 3)).await;
}

#[tokio::test]
async fn requests_cross_and_their_handlers_ask_back() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let (to_bob, to_alice) = (
        alice.session(id(2)).await.unwrap(),
        bob.session(id(1)).await.unwrap(),
    );
    let _at_alice = to_bob.on_request(echo).unwrap();
    // More than handlers may be at work, each of which waits for an answer of the other side.
    let back = to_alice.clone();
    let _at_bob = to_alice
        .on_request(move |request| {
            let back = back.clone();
            async move { Ok(back.request(request.payload().clone()).await?) }
        })
        .unwrap();
    let asking = |session: &Session, side: &'static str| {
        let session = session.clone();
        async move {
            let all = (0..100).map(|n| {
                let session = session.clone();
                async move {
                    let question = format!("{side} {n}");
                    assert_eq!(ask(&session, &question).await.unwrap(), question);
                }
            });
            futures_util::future::join_all(all).await;
        }
    };
    soon("all answers", async {
        tokio::join!(asking(&to_bob, "a"), asking(&to_alice, "b"))
    })
    .await;
    assert_eq!(
        (to_bob.requests_pending(), to_alice.requests_pending()),
        (0, 0)
    );
}

#[tokio::test]
async fn a_request_outlives_ten_reconnects_and_a_change_of_relay() {
    let (old, new) = (relay().await, relay().await);
    let ((alice, one), (bob, two)) = (
        node_and_network(1, &old).await,
        node_and_network(2, &old).await,
    );
    let (handler, mut asked, gate) = slow();
    let theirs = bob.session(id(1)).await.unwrap();
    let _answering = theirs.on_request(handler).unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let requests = async {
        tokio::join!(
            ask(&session, "first"),
            ask(&session, "second"),
            ask(&session, "third")
        )
    };
    let meanwhile = async {
        for _ in 0..3 {
            soon("the request", asked.recv()).await.unwrap();
        }
        for _ in 0..10 {
            for (network, session) in [(&one, &session), (&two, &theirs)] {
                network.down();
                until(session, "the cut", |state| state.links.is_empty()).await;
                network.up();
                until(session, "a link", |state| !state.links.is_empty()).await;
            }
        }
        gate.add_permits(1);
        alice.switch_relay(Arc::new(way(&new)));
        bob.switch_relay(Arc::new(way(&new)));
        gate.add_permits(2);
    };
    let (answers, ()) = soon(
        "the answers",
        Box::pin(async { tokio::join!(requests, meanwhile) }),
    )
    .await;
    assert_eq!(answers.0.unwrap(), "first");
    assert_eq!(answers.1.unwrap(), "second");
    assert_eq!(answers.2.unwrap(), "third");
    assert!(asked.try_recv().is_err(), "a handler was entered twice");
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_more_leaves_nothing_behind() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let (handler, mut asked, gate) = slow();
    let _answering = bob.on_request(handler).unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let given_up = tokio::spawn({
        let session = session.clone();
        async move { session.request("never mind").await }
    });
    soon("the request", asked.recv()).await.unwrap();
    assert_eq!(session.requests_pending(), 1);
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    assert_eq!(session.requests_pending(), 0);
    gate.add_permits(10);
    // Its answer came, and was let go of.
    until_inbox(&alice, 2, (0, 1)).await;
    assert_eq!(ask(&session, "but this").await.unwrap(), "but this");
    until_inbox(&alice, 2, (0, 2)).await;
}

#[tokio::test]
async fn a_request_waits_until_its_peer_is_there_and_has_a_handler() {
    let relay = relay().await;
    let alice = node(1, &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    let asking = tokio::spawn(async move { ask(&session, "hello").await });
    let bob = node(2, &relay).await;
    until_inbox(&bob, 1, (1, 1)).await;
    let (handler, mut asked, gate) = slow();
    let _answering = bob.on_request(handler).unwrap();
    let request = soon("the request", asked.recv()).await.unwrap();
    assert!(!request.redelivered(), "no handler had it before");
    gate.add_permits(1);
    let answer = soon("the answer", asking).await.unwrap();
    assert_eq!(answer.unwrap(), "hello");
}

#[tokio::test]
async fn a_request_that_nobody_answers_expires_and_is_answered_by_nobody() {
    let relay = relay().await;
    let alice = node(1, &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    let short = Duration::from_millis(300);
    let absent = session.request_within("nobody there", short).await;
    assert!(matches!(absent, Err(RequestError::Expired)));

    let bob = node(2, &relay).await;
    let theirs = bob.session(id(1)).await.unwrap();
    until(&theirs, "a link", |state| !state.links.is_empty()).await;
    // The second is given up as long after the first as that was given to be answered: by then the
    // peer has let go of the first too, whenever it came.
    for question in ["nobody listens", "nor now"] {
        let no_handler = session.request_within(question, short).await;
        assert!(matches!(no_handler, Err(RequestError::Expired)));
    }
    let gone = session.request_within("no time", Duration::ZERO).await;
    assert!(matches!(gone, Err(RequestError::Expired)));
    assert_eq!(session.requests_pending(), 0);

    let (handler, mut asked, gate) = slow();
    gate.add_permits(10);
    let _answering = theirs.on_request(handler).unwrap();
    assert_eq!(ask(&session, "in time").await.unwrap(), "in time");
    while let Ok(request) = asked.try_recv() {
        assert!(request.expires() > request.received());
        assert_ne!(request.payload(), "nobody there");
        assert_ne!(request.payload(), "nobody listens");
    }
}

#[tokio::test]
async fn a_malformed_request_harms_nobody() {
    let relay = relay().await;
    let bob = node(2, &relay).await;
    let _answering = bob.on_request(echo).unwrap();
    let theirs = bob.session(id(1)).await.unwrap();
    let mut events = theirs.events(64);
    let good = outlive_core::wire::request::Message::Request {
        id: RequestId::new(1, 2, 3),
        ttl: SOON,
        payload: Bytes::from(vec![1; 50_000]),
    }
    .to_bytes();
    let mut other_version = good.to_vec();
    other_version[0] = 99;
    let mut unknown_kind = good.to_vec();
    unknown_kind[1] = 99;
    let malformed = [
        Bytes::new(),
        Bytes::from_static(b"\xff\xff\xff\xff"),
        Bytes::from_static(b"no request"),
        good.slice(..10),
        // Sorted as a request, and found to be cut off when it is to be answered.
        good.slice(..30),
        good.slice(..40_000),
        other_version.into(),
        unknown_kind.into(),
        Bytes::from(vec![0xa5; 200_000]),
    ];
    let count = malformed.len() as u64;
    // Answers to what was never asked, and to what was asked by another process.
    let unasked = [RequestId::new(0, 0, 0), RequestId::new(1, 2, 3)].map(|id| {
        let unasked = outlive_core::wire::request::Message::Response {
            id,
            payload: Bytes::from_static(b"surprise"),
        };
        unasked.to_bytes()
    });
    let store = MemoryStore::new();
    let all = malformed.into_iter().chain(unasked);
    let names = misuse::queue(&store, (1, 2), ChannelId::REQUESTS, all).await;
    let alice = node_over(1, store, &relay).await;
    let mut told = BTreeSet::new();
    while told.len() < count as usize {
        if let Some((SessionEvent::MalformedRequest { id }, _)) =
            soon("word of it", events.next()).await
        {
            told.insert(id);
        }
    }
    assert_eq!(told, names.into_iter().take(count as usize).collect());
    let session = alice.session(id(2)).await.unwrap();
    assert_eq!(ask(&session, "still here").await.unwrap(), "still here");
    until_inbox(&bob, 1, (0, count + 3)).await;
}

#[tokio::test]
async fn more_requests_than_may_wait_take_turns() {
    const MORE: usize = 10;
    let relay = relay().await;
    let (alice, _) = node_and_network(1, &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..outlive::PENDING_REQUESTS + MORE {
        let session = session.clone();
        asking.spawn(async move { session.request("hello").await });
    }
    comes_true("as many as may", async || {
        session.requests_pending() >= outlive::PENDING_REQUESTS
    })
    .await;
    let bob = node(2, &relay).await;
    let _answering = bob.on_request(echo).unwrap();
    while let Some(answered) = soon("an answer", asking.join_next()).await {
        assert!(session.requests_pending() <= outlive::PENDING_REQUESTS);
        answered.unwrap().unwrap();
    }
    assert_eq!(session.requests_pending(), 0);
}

#[tokio::test]
async fn requests_of_a_closed_session_hear_so_and_their_channel_has_no_inbox() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let (handler, mut asked, _gate) = slow();
    let theirs = bob.session(id(1)).await.unwrap();
    let answering = theirs.on_request(handler).unwrap();
    let session = alice.session(id(2)).await.unwrap();
    assert!(matches!(
        session.inbox(ChannelId::REQUESTS),
        Err(Error::Requests(ChannelId::REQUESTS))
    ));
    let asking = tokio::spawn({
        let session = session.clone();
        async move { session.request("hello").await }
    });
    let first = soon("the request", asked.recv()).await.unwrap();
    let other = session.clone();
    session.close().await.unwrap();
    let closed = soon("the end", asking).await.unwrap();
    assert!(matches!(closed, Err(RequestError::Session(Error::Closed))));
    let late = other.request("late").await;
    assert!(matches!(late, Err(RequestError::Session(Error::Closed))));
    assert!(matches!(other.on_request(echo), Err(Error::Closed)));

    // The other way round: the handler was at work when its session was closed.
    theirs.close().await.unwrap();
    drop(answering);
    let (handler, mut asked, _gate) = slow();
    let theirs = bob.session(id(1)).await.unwrap();
    let _answering = theirs.on_request(handler).unwrap();
    let again = soon("the request again", asked.recv()).await.unwrap();
    assert!(again.redelivered());
    assert_eq!(again.message_id(), first.message_id());
}
