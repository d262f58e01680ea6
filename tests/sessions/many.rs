//! A node with very many sessions: only those with work cost anything.

use std::time::Duration;

use outlive::record::{Key, Record, Session as SessionRecord};
use outlive::{Epoch, Identity, Node, PeerId, SessionEvent, Store, WallTime};
use outlive_core::store::Batch;
use outlive_storage::{Flush, MemoryStore, Snapshot};
use outlive_testing::tasks;
use tokio::sync::OnceCell;

use crate::paper::Paper;
use crate::watched::Watched;
use crate::world::{CHAT, comes_true, id, node, relay, take, way};

const SESSIONS: u32 = 100_000;
const WITH_WORK: u8 = 10;

/// The peers without work are numbered from here on; those with work are 1 to 10.
fn idle_peer(n: u32) -> PeerId {
    let mut seed = [0xff; 32];
    seed[..4].copy_from_slice(&n.to_le_bytes());
    Identity::from_seed(seed).peer_id()
}

async fn start(store: impl Store, relay: impl outlive::RelayTransport) -> Node {
    Node::builder()
        .identity(Identity::from_seed([99; 32]))
        .store(store)
        .transport(relay)
        .start()
        .await
        .unwrap()
}

/// A store with 100,000 sessions, ten of which have a message that waits.
async fn crowded() -> MemoryStore {
    static FILLED: OnceCell<Snapshot> = OnceCell::const_new();
    MemoryStore::over(FILLED.get_or_init(fill).await, Flush::EachCommit)
}

async fn fill() -> Snapshot {
    let store = MemoryStore::new();
    let node = Node::builder()
        .identity(Identity::from_seed([99; 32]))
        .store(store.clone())
        .start()
        .await
        .unwrap();
    for n in 1..=WITH_WORK {
        let session = node.session(id(n)).await.unwrap();
        session.send(CHAT, "waits").await.unwrap();
    }
    node.shutdown().await.unwrap();
    let store = MemoryStore::over(&store.faults().snapshot(), Flush::EachCommit);
    let mut batch = Batch::new();
    for n in u32::from(WITH_WORK)..SESSIONS {
        let record = SessionRecord {
            peer_epoch: Some(Epoch(u64::from(n))),
            last_seen: Some(WallTime(1)),
            ..SessionRecord::new(Epoch(1))
        };
        let key = Key::Session(idle_peer(n)).to_bytes();
        batch.put(key, record.to_bytes());
    }
    store.commit(batch).await.unwrap();
    store.faults().snapshot()
}

#[tokio::test]
async fn of_100_000_sessions_only_those_with_work_wake_up() {
    let store = Watched::over(crowded().await);
    let relay = relay().await;
    let mut peers = Vec::new();
    for n in 1..=WITH_WORK {
        let peer = node(n, &relay).await;
        let session = peer.session(id(99)).await.unwrap();
        peers.push((peer, session.inbox(CHAT).unwrap()));
    }
    let me = start(store.clone(), way(&relay)).await;
    let opened = store.reads();
    // Whose it is, where its clock stands, how often it was started, its delivery token, whether it is
    // locked, who is blocked, who is a stranger.
    assert!(opened.gets <= 5 && opened.ranges <= 3, "{opened:?}");
    assert_eq!(opened.records, 0);
    for (_, inbox) in &mut peers {
        assert_eq!(take(inbox).await, "waits");
    }
    assert_eq!(me.sessions_awake(), usize::from(WITH_WORK));
    let reads = store.reads();
    // Each of the ten loads its session, its waiting segments and its outbox, more or less.
    assert!(reads.gets <= 50 && reads.records <= 200, "{reads:?}");
    me.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_reconnect_costs_what_the_sessions_with_work_cost() {
    let store = Watched::over(crowded().await);
    let relay = Paper::new();
    let me = start(store.clone(), relay.clone()).await;
    let work = usize::from(WITH_WORK);
    relay.holds_for(work).await;
    for _ in 0..10 {
        let before = store.reads();
        relay.down();
        relay.connected(0).await;
        relay.up();
        relay.connected(1).await;
        // Time passes for everything that a connection brings about, and for all that it must not.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let after = store.reads();
        assert!(after.gets - before.gets <= 2 * work, "{before:?} {after:?}");
        let records = after.records - before.records;
        assert!(records <= 2 * work, "{before:?} {after:?}");
        assert_eq!(me.sessions_awake(), work);
    }
    me.shutdown().await.unwrap();
}

/// The time that somebody holds a session is what is staged: far longer than it stays awake that nobody
/// holds.
async fn held_for_long() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn sessions_whose_handles_were_dropped_go_to_sleep() {
    const OPENED: u32 = 1_000;
    let relay = Paper::new();
    let me = start(crowded().await, relay.clone()).await;
    relay.holds_for(usize::from(WITH_WORK)).await;
    let mut handles = Vec::new();
    for n in 0..OPENED {
        handles.push(me.session(idle_peer(50_000 + n)).await.unwrap());
    }
    let awake = usize::from(WITH_WORK) + OPENED as usize;
    assert_eq!(me.sessions_awake(), awake);
    held_for_long().await;
    assert_eq!(
        me.sessions_awake(),
        awake,
        "a handle keeps its session awake"
    );
    drop(handles);
    comes_true("those without work to fall asleep", async || {
        me.sessions_awake() == usize::from(WITH_WORK)
    })
    .await;
    // The node's own are those of its relay and its clock, and one that waits for its runtime's end.
    comes_true("their tasks to end", async || {
        tasks() <= usize::from(WITH_WORK) + 3
    })
    .await;
    me.shutdown().await.unwrap();
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_alone_keeps_its_session_awake() {
    let relay = Paper::new();
    let me = start(MemoryStore::new(), relay.clone()).await;
    let mut events = me.session(id(1)).await.unwrap().events(16);
    let (event, _) = events.next().await.unwrap();
    assert!(matches!(event, SessionEvent::LinkUp { .. }));
    held_for_long().await;
    assert_eq!(me.sessions_awake(), 1);
    relay.down();
    let (event, _) = events.next().await.unwrap();
    assert!(matches!(event, SessionEvent::LinkDown { .. }));
    drop(events);
    comes_true("the session to fall asleep", async || {
        me.sessions_awake() == 0
    })
    .await;
}

#[tokio::test]
async fn all_sessions_can_be_listed_a_page_at_a_time() {
    let store = crowded().await;
    let mut after = None;
    let mut seen = 0;
    loop {
        let page = outlive::list_sessions(&store, after, 10_000).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.windows(2).all(|pair| pair[0].peer < pair[1].peer));
        after = Some(last.peer);
        seen += page.len();
    }
    assert_eq!(seen, SESSIONS as usize);
}
