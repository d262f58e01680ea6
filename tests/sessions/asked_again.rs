//! Requests and answers over restarts of either peer, and of a store.

use outlive::{Node, RequestId, SessionEvent, StoreError};
use outlive_storage::MemoryStore;

use crate::requests::{ask, inbox_of, slow, until_inbox};
use crate::watched::Watched;
use crate::world::{id, node, node_over, relay, soon, way};

#[tokio::test]
async fn after_a_restart_of_its_peer_a_request_is_handled_again_and_answered_once() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let alice = node(1, &relay).await;
    let bob = node_over(2, store.clone(), &relay).await;
    let (handler, mut asked, _gate) = slow();
    let answering = bob.on_request(handler).unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let asking = tokio::spawn(async move { ask(&session, "hello").await });
    let first = soon("the request", asked.recv()).await.unwrap();
    assert!(!first.redelivered());
    drop((answering, bob));

    // Nobody opens the session: the node finds it by itself.
    let bob = node_over(2, store.faults().crash(), &relay).await;
    let (handler, mut asked, gate) = slow();
    let _answering = bob.on_request(handler).unwrap();
    let again = soon("the request again", asked.recv()).await.unwrap();
    assert!(again.redelivered());
    assert_eq!(again.message_id(), first.message_id());
    assert_eq!(again.id(), first.id());
    gate.add_permits(10);
    let answer = soon("the answer", asking).await.unwrap();
    assert_eq!(answer.unwrap(), "hello");
    until_inbox(&bob, 1, (0, 1)).await;
    until_inbox(&alice, 2, (0, 1)).await;
}

#[tokio::test]
async fn after_a_restart_of_the_one_who_asked_its_answer_is_nobodys() {
    let (store, relay) = (MemoryStore::new(), relay().await);
    let alice = node_over(1, store.clone(), &relay).await;
    let bob = node(2, &relay).await;
    let (handler, mut asked, gate) = slow();
    let _answering = bob.on_request(handler).unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let lost = tokio::spawn(async move { session.request("before").await });
    let before = soon("the request", asked.recv()).await.unwrap();
    lost.abort();
    drop(alice);

    let alice = node_over(1, store.faults().crash(), &relay).await;
    let session = alice.session(id(2)).await.unwrap();
    let asking = tokio::spawn(async move { ask(&session, "after").await });
    let after = soon("the request", asked.recv()).await.unwrap();
    assert!(after.id() > before.id());
    gate.add_permits(10);
    let answer = soon("the answer", asking).await.unwrap();
    assert_eq!(answer.unwrap(), "after");
    until_inbox(&alice, 2, (0, 2)).await;
}

#[tokio::test]
async fn an_answer_whose_commit_failed_with_the_store_is_committed_when_that_works_again() {
    let relay = relay().await;
    let inner = MemoryStore::new();
    let store = Watched::over(inner.clone());
    let alice = Node::builder()
        .identity(outlive::Identity::from_seed([1; 32]))
        .store(store.clone())
        .transport(way(&relay))
        .start()
        .await
        .unwrap();
    let bob = node(2, &relay).await;
    let (handler, mut asked, answer) = slow();
    let _answering = bob.on_request(handler).unwrap();
    let session = alice.session(id(2)).await.unwrap();
    let mut asking = tokio::spawn({
        let session = session.clone();
        async move { ask(&session, "hello").await }
    });
    soon("the request", asked.recv()).await.unwrap();
    store.gate();
    answer.add_permits(1);
    let answered = loop {
        tokio::select! {
            biased;
            answered = &mut asking => break answered,
            () = store.at_the_gate(1) => store.let_one_through().await,
        }
    };
    assert_eq!(answered.unwrap().unwrap(), "hello");
    inner.faults().fail_commits(1, &StoreError::Full);
    store.let_through(1_000);
    let mut events = session.events(64);
    soon("the failure", async {
        while !matches!(
            events.next().await,
            Some((SessionEvent::StoreFailed, _)) | None
        ) {}
    })
    .await;
    until_inbox(&alice, 2, (0, 1)).await;
    assert_eq!(inbox_of(&alice, 2).await, (0, 1));
}

#[tokio::test]
async fn request_ids_only_grow_across_restarts_too() {
    let relay = relay().await;
    let bob = node(2, &relay).await;
    let (handler, mut asked, gate) = slow();
    gate.add_permits(1_000);
    let _answering = bob.on_request(handler).unwrap();
    let mut store = MemoryStore::new();
    let mut last: Option<RequestId> = None;
    for _ in 0..4 {
        let alice = node_over(1, store.clone(), &relay).await;
        let session = alice.session(id(2)).await.unwrap();
        let all = (0..50).map(|_| ask(&session, "hello"));
        futures_util::future::try_join_all(all).await.unwrap();
        for _ in 0..50 {
            let id = asked.try_recv().unwrap().id();
            assert!(last.is_none_or(|last| last < id), "{last:?} before {id:?}");
            last = Some(id);
        }
        drop((session, alice));
        store = store.faults().crash();
    }
}
