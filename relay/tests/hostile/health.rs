//! What the relay answers whoever watches it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use outlive_core::store::{Batch, Store, StoreError};
use outlive_core::wire::relay::{Class, FromRelay};
use outlive_relay::{Relay, RelayConfig};
use outlive_storage::MemoryStore;
use outlive_testing::{Intercepted, Interceptor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, accepted, comes_true, id, relay_over, soon, submit};

const ALICE: u16 = 1;
const BOB: u16 = 2;

/// The status of the answer, and what it says.
async fn health(relay: &Relay) -> (u16, String) {
    let mut socket = TcpStream::connect(relay.local_addr()).await.unwrap();
    let request = "GET /health HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", socket.read_to_string(&mut answer))
        .await
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().unwrap(), body.to_owned())
}

async fn is_refused(alice: &mut Client, envelope: u64) -> bool {
    let keep = submit(envelope, id(BOB), Class::Keep, "mail");
    let answer = alice.submit(keep).await;
    let refused = matches!(answer, FromRelay::Refused { .. });
    assert!(refused || answer == accepted(envelope), "{answer:?}");
    refused
}

#[tokio::test]
async fn a_store_that_takes_nothing_shows_until_it_takes_something() {
    let mut config = RelayConfig::default();
    config.sweep_every = Duration::from_secs(3_600);
    let store = MemoryStore::new();
    let relay = relay_over(store.clone(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    let well = (200, "ok".to_owned());
    assert_eq!(health(&relay).await, well);
    assert!(!is_refused(&mut alice, 1).await);
    assert_eq!(health(&relay).await, well);
    store.faults().fail_commits(1, &StoreError::Full);
    assert!(is_refused(&mut alice, 2).await);
    let full = "the store can't be written: the disk is full\n";
    assert_eq!(health(&relay).await, (503, full.to_owned()));
    assert!(!is_refused(&mut alice, 3).await);
    assert_eq!(health(&relay).await, well);
    relay.shutdown().await.unwrap();
}

/// A disk that may be full.
#[derive(Default)]
struct Disk {
    full: AtomicBool,
}

#[async_trait]
impl Interceptor for Disk {
    async fn commit(&self, store: &MemoryStore, batch: Batch) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(StoreError::Full);
        }
        store.commit(batch).await
    }
}

#[tokio::test]
async fn a_store_that_works_again_shows_though_nobody_brings_anything() {
    let mut config = RelayConfig::default();
    config.sweep_every = Duration::from_millis(50);
    let store = Intercepted::new(MemoryStore::new(), Disk::default());
    let relay = relay_over(store.clone(), config).await;
    let mut alice = Client::sign_in(&relay, ALICE).await;
    store.interceptor().full.store(true, Ordering::Relaxed);
    assert!(is_refused(&mut alice, 1).await);
    drop(alice);
    assert_eq!(health(&relay).await.0, 503);
    store.interceptor().full.store(false, Ordering::Relaxed);
    comes_true("a store that works", async || health(&relay).await.0 == 200).await;
    relay.shutdown().await.unwrap();
}
