//! Where a node may be found, as its socket says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlive::{Identity, NetworkMonitor, Node, PeerId};
use outlive_core::transport::{DirectEndpoint, DirectLink, DirectTransport, TransportError};
use outlive_storage::MemoryStore;
use tokio::time::Instant;

/// A socket that takes a while to find out where it is: a server does not answer.
struct Pondering;

const TAKES: Duration = Duration::from_secs(2);

fn address() -> SocketAddr {
    ([192, 0, 2, 1], 4433).into()
}

#[async_trait]
impl DirectTransport for Pondering {
    fn name(&self) -> &'static str {
        "pondering"
    }

    async fn bind(&self, _: &Identity) -> Result<Arc<dyn DirectEndpoint>, TransportError> {
        Ok(Arc::new(Self))
    }
}

#[async_trait]
impl DirectEndpoint for Pondering {
    async fn addresses(&self) -> Vec<SocketAddr> {
        tokio::time::sleep(TAKES).await;
        vec![address()]
    }

    async fn dial(&self, _: PeerId, _: &[SocketAddr]) -> Result<DirectLink, TransportError> {
        std::future::pending().await
    }

    async fn accept(&self) -> Result<DirectLink, TransportError> {
        std::future::pending().await
    }

    async fn network_changed(&self) -> Result<(), TransportError> {
        Ok(())
    }

    async fn close(&self) {}
}

#[tokio::test(start_paused = true)]
async fn where_a_node_is_becomes_known_though_its_network_changes_all_the_time() {
    let network = NetworkMonitor::new();
    let node = Node::builder()
        .identity(Identity::from_seed([1; 32]))
        .store(MemoryStore::new())
        .direct(Pondering)
        .network(network.clone());
    let node = node.start().await.expect("a node");
    let mut known = node.addresses().expect("a socket");
    let restless = async {
        loop {
            tokio::time::sleep(TAKES / 2).await;
            network.up();
        }
    };
    let began = Instant::now();
    tokio::select! {
        known = known.wait_for(|known| !known.is_empty()) => {
            assert_eq!(**known.expect("a node that runs"), [address()]);
        }
        () = restless => {}
        () = tokio::time::sleep(TAKES * 10) => panic!("it is not known"),
    }
    // The first look is cut short, for it is of the network before; the second is not.
    assert!(began.elapsed() <= TAKES * 2, "{:?}", began.elapsed());
}
