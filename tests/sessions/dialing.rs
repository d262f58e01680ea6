//! When a relay is dialed again, on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use outlive::{Identity, NetworkMonitor, Node, RelayState, RelayTransport, TransportError};
use outlive_core::transport::{DeliveryToken, Incoming, RelayConnection, RelayReceiver};
use outlive_storage::MemoryStore;
use outlive_transports::{MemoryRelay, Way};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::paper::Paper;
use crate::played;
use crate::scene::{counted, linked, on, unlinked, with_network};
use crate::world::{CHAT, id, soon};

/// The most attempts that fall into one window of this length.
fn crowd(attempts: &[Instant], window: Duration) -> usize {
    let within = |from: Instant| move |&&at: &&Instant| at >= from && at < from + window;
    let sizes = attempts.iter().map(|&from| {
        let crowd = attempts.iter().filter(within(from));
        crowd.count()
    });
    sizes.max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn clients_that_lost_their_relay_together_do_not_come_back_together() {
    const CLIENTS: usize = 50;
    let relay = Paper::new();
    let mut nodes = Vec::new();
    for n in 0..CLIENTS {
        let node = Node::builder()
            .identity(Identity::from_seed([n as u8; 32]))
            .store(MemoryStore::new())
            .transport(relay.clone())
            .start();
        nodes.push(node.await.unwrap());
    }
    relay.connected(CLIENTS).await;
    relay.attempts();

    let down = Instant::now();
    relay.down();
    relay.connected(0).await;
    assert_eq!(Instant::now(), down, "all lost it in one instant");
    // How long it is down is what is staged.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let attempts = relay.attempts();
    let first: Vec<_> = attempts.iter().take(CLIENTS).copied().collect();
    assert!(crowd(&first, Duration::from_millis(20)) < CLIENTS / 2);
    // Ever fewer of them: the spans from which the waits are drawn have grown to 30 s.
    let late = |at: &&Instant| **at >= down + Duration::from_secs(30);
    let late: Vec<_> = attempts.iter().filter(late).copied().collect();
    assert!(late.len() < 6 * CLIENTS, "{} attempts", late.len());
    assert!(crowd(&late, Duration::from_millis(500)) < CLIENTS / 2);

    relay.up();
    relay.connected(CLIENTS).await;
    let back = relay.attempts();
    assert_eq!(back.len(), CLIENTS);
    assert!(crowd(&back, Duration::from_millis(500)) < CLIENTS / 2);
    for node in nodes {
        node.shutdown().await.unwrap();
    }
}

/// A way to a relay on which the first attempt hangs.
#[derive(Clone)]
struct Hanging {
    way: MemoryRelay,
    attempts: Arc<watch::Sender<usize>>,
}

#[async_trait::async_trait]
impl RelayTransport for Hanging {
    fn address(&self) -> &str {
        self.way.address()
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        self.attempts.send_modify(|attempts| *attempts += 1);
        if *self.attempts.borrow() == 1 {
            std::future::pending::<()>().await;
        }
        self.way.connect(identity).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_comes_up_while_a_dial_hangs_is_dialed_over_at_once() {
    let way = Hanging {
        way: MemoryRelay::new("relay"),
        attempts: Arc::default(),
    };
    let network = NetworkMonitor::new();
    let alice = with_network(1, way.clone(), &network).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let mut attempts = way.attempts.subscribe();
    attempts.wait_for(|attempts| *attempts == 1).await.unwrap();
    let up = Instant::now();
    network.up();
    linked(&to_bob).await;
    assert_eq!(up.elapsed(), Duration::ZERO, "it waited for the attempt");
}

/// A way to a relay on which connecting takes its time.
#[derive(Clone)]
struct Slow {
    way: MemoryRelay,
    takes: Duration,
}

#[async_trait::async_trait]
impl RelayTransport for Slow {
    fn address(&self) -> &str {
        self.way.address()
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        tokio::time::sleep(self.takes).await;
        self.way.connect(identity).await
    }
}

#[tokio::test(start_paused = true)]
async fn who_hears_of_the_network_more_often_than_a_dial_takes_gets_there() {
    let takes = Duration::from_secs(5);
    let way = Slow {
        way: MemoryRelay::new("relay"),
        takes,
    };
    let network = NetworkMonitor::new();
    let alice = with_network(1, way, &network).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    let restless = async {
        loop {
            tokio::time::sleep(takes / 2).await;
            network.up();
        }
    };
    let dialed = Instant::now();
    tokio::select! {
        () = linked(&to_bob) => {}
        () = restless => {}
    }
    assert!(dialed.elapsed() <= takes * 3, "{:?}", dialed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_which_the_network_may_have_changed_has_to_show_that_it_lives() {
    let relay = MemoryRelay::new("relay");
    let way = Slow {
        way: relay.clone(),
        takes: Duration::from_secs(4),
    };
    let network = NetworkMonitor::new();
    let _dead = relay.faults().hold(id(1), Way::FromRelay);
    let _alice = with_network(1, way, &network).await;
    // With the first it is dialed anew. With the second it could be, but is there before.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        network.up();
    }
    counted(&relay, "another", |counts| counts.sign_ins == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_took_long_to_reach_has_longer_to_show_that_it_is_there() {
    let takes = Duration::from_secs(5);
    let relay = MemoryRelay::new("relay");
    let way = Slow {
        way: relay.clone(),
        takes,
    };
    let network = NetworkMonitor::new();
    let alice = with_network(1, way, &network).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    linked(&to_bob).await;
    for _ in 0..10 {
        let answers = relay.faults().hold(id(1), Way::FromRelay);
        network.up();
        // How long the answer is on its way is what is staged.
        tokio::time::sleep(takes - Duration::from_secs(1)).await;
        drop(answers);
        tokio::time::sleep(takes).await;
    }
    assert_eq!(relay.counts().borrow().sign_ins, 1);
}

/// A way to a relay that leads nowhere for a while. It takes two seconds to find out.
#[derive(Clone)]
struct Interrupted {
    way: MemoryRelay,
    leads: Arc<watch::Sender<bool>>,
}

#[async_trait::async_trait]
impl RelayTransport for Interrupted {
    fn address(&self) -> &str {
        self.way.address()
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        let leads = *self.leads.borrow();
        tokio::time::sleep(Duration::from_secs(2)).await;
        if !leads {
            return Err(TransportError::Broken("nowhere".to_owned()));
        }
        self.way.connect(identity).await
    }
}

/// A node that has tried to reach its relay in vain for so long that it tries it rarely.
async fn after_an_outage(relay: &MemoryRelay) -> (Node, NetworkMonitor, Arc<watch::Sender<bool>>) {
    let leads = Arc::new(watch::Sender::new(false));
    let way = Interrupted {
        way: relay.clone(),
        leads: leads.clone(),
    };
    let network = NetworkMonitor::new();
    let node = with_network(1, way, &network).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    (node, network, leads)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_over_the_network_before_is_followed_by_one_at_once() {
    let relay = MemoryRelay::new("relay");
    let (_alice, network, leads) = after_an_outage(&relay).await;
    for last in [false, false, true] {
        tokio::time::sleep(Duration::from_millis(500)).await;
        leads.send_replace(last);
        network.up();
    }
    let up = Instant::now();
    counted(&relay, "alice", |counts| counts.sign_ins == 1).await;
    assert!(up.elapsed() < Duration::from_secs(4), "{:?}", up.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_led_nowhere_since_the_network_changed_is_made_anew_at_once() {
    let relay = MemoryRelay::new("relay");
    let (_alice, network, leads) = after_an_outage(&relay).await;
    leads.send_replace(true);
    network.up();
    counted(&relay, "alice", |counts| counts.sign_ins == 1).await;
    assert!(relay.faults().half_dead(id(1)));
    network.up();
    let up = Instant::now();
    counted(&relay, "alice again", |counts| counts.sign_ins == 2).await;
    assert!(up.elapsed() < Duration::from_secs(5), "{:?}", up.elapsed());
}

/// A way to a relay of which a byte comes each second, and no message is ever whole.
#[derive(Clone)]
struct Trickling {
    way: MemoryRelay,
}

struct Trickle {
    receiver: Box<dyn RelayReceiver>,
    asked: Instant,
}

#[async_trait::async_trait]
impl RelayReceiver for Trickle {
    async fn receive(&mut self) -> Result<Incoming, TransportError> {
        self.receiver.receive().await
    }

    fn has_heard(&mut self) -> bool {
        let asked = std::mem::replace(&mut self.asked, Instant::now());
        asked.elapsed() >= Duration::from_secs(1)
    }
}

#[async_trait::async_trait]
impl RelayTransport for Trickling {
    fn address(&self) -> &str {
        self.way.address()
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        let connection = self.way.connect(identity).await?;
        Ok(RelayConnection {
            receiver: Box::new(Trickle {
                receiver: connection.receiver,
                asked: Instant::now(),
            }),
            ..connection
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_on_its_way_shows_that_a_relay_lives_however_often_the_network_changes() {
    let relay = MemoryRelay::new("relay");
    let network = NetworkMonitor::new();
    let way = Trickling { way: relay.clone() };
    let _whole = relay.faults().hold(id(1), Way::FromRelay);
    let _alice = with_network(1, way, &network).await;
    counted(&relay, "alice", |counts| counts.sign_ins == 1).await;
    // What is staged is how long the message takes, and that the network changes meanwhile.
    for _ in 0..50 {
        network.up();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert_eq!(relay.counts().borrow().sign_ins, 1);
}

/// A way to a relay that falls over as soon as it has greeted somebody.
#[derive(Clone)]
struct Falling {
    way: MemoryRelay,
    attempts: Arc<watch::Sender<usize>>,
}

struct Fallen;

#[async_trait::async_trait]
impl RelayReceiver for Fallen {
    async fn receive(&mut self) -> Result<Incoming, TransportError> {
        Err(TransportError::Broken("it fell over".to_owned()))
    }
}

#[async_trait::async_trait]
impl RelayTransport for Falling {
    fn address(&self) -> &str {
        self.way.address()
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        self.attempts.send_modify(|attempts| *attempts += 1);
        Ok(RelayConnection {
            receiver: Box::new(Fallen),
            ..self.way.connect(identity).await?
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_falls_over_when_it_is_greeted_is_greeted_ever_more_rarely() {
    let way = Falling {
        way: MemoryRelay::new("relay"),
        attempts: Arc::default(),
    };
    let _alice = with_network(1, way.clone(), &NetworkMonitor::new()).await;
    // The time in which it does so is what is staged.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let attempts = *way.attempts.borrow();
    assert!((10..150).contains(&attempts), "{attempts} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_leads_nowhere_ends_soon_after_the_network_came_up() {
    let relay = MemoryRelay::new("relay");
    let network = NetworkMonitor::new();
    let alice = with_network(1, relay.clone(), &network).await;
    let to_bob = alice.session(id(2)).await.unwrap();
    linked(&to_bob).await;
    // One that lives shows so, as often as it is asked. Time passes, in which one that does not would end.
    for _ in 0..10 {
        network.up();
        network.up();
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(relay.counts().borrow().sign_ins, 1);
    relay.faults().half_dead(id(1));
    network.up();
    let up = Instant::now();
    unlinked(&to_bob).await;
    linked(&to_bob).await;
    assert!(up.elapsed() < Duration::from_secs(6), "{:?}", up.elapsed());
    assert_eq!(relay.counts().borrow().sign_ins, 2);
}

#[tokio::test(start_paused = true)]
async fn two_nodes_of_one_identity_push_each_other_out_ever_more_rarely() {
    let relay = MemoryRelay::new("relay");
    let (_one, _two) = (on(1, &[&relay]).await, on(1, &[&relay]).await);
    // The time in which they do it is what is staged.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let sign_ins = relay.counts().borrow().sign_ins;
    assert!(sign_ins < 150, "{sign_ins} connections in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_second_connection_that_fails_has_the_first_made_anew_ever_more_rarely() {
    let (node, mut lines) = played::node(1).await;
    let session = node.session(id(2)).await.unwrap();
    let token = DeliveryToken::from_bytes([7; 32]);
    session.send_unidentified(Some(token)).await.unwrap();
    session.send(CHAT, "to be sent unnamed").await.unwrap();
    let mut made = Vec::new();
    let making = async {
        while let Some(line) = lines.recv().await {
            made.push(line);
        }
    };
    let ten_minutes = tokio::time::timeout(Duration::from_secs(600), making).await;
    assert!(ten_minutes.is_err(), "the node lives");
    let count = made.len();
    assert!((10..150).contains(&count), "{count} in ten minutes");
}

/// A way to a relay of which every connection has lost its address, and the second is never made.
#[derive(Clone)]
struct Moved {
    way: MemoryRelay,
    attempts: Arc<watch::Sender<usize>>,
}

struct Stranded(Box<dyn RelayReceiver>);

#[async_trait::async_trait]
impl RelayReceiver for Stranded {
    async fn receive(&mut self) -> Result<Incoming, TransportError> {
        self.0.receive().await
    }

    fn is_stranded(&self) -> bool {
        true
    }
}

#[async_trait::async_trait]
impl RelayTransport for Moved {
    fn address(&self) -> &str {
        self.way.address()
    }

    async fn connect(&self, identity: &Identity) -> Result<RelayConnection, TransportError> {
        self.attempts.send_modify(|attempts| *attempts += 1);
        if *self.attempts.borrow() > 1 {
            std::future::pending::<()>().await;
        }
        let connection = self.way.connect(identity).await?;
        Ok(RelayConnection {
            receiver: Box::new(Stranded(connection.receiver)),
            ..connection
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_is_dialed_anew_because_we_have_moved_is_not_said_to_be_connected() {
    let way = Moved {
        way: MemoryRelay::new("relay"),
        attempts: Arc::default(),
    };
    let network = NetworkMonitor::new();
    let alice = with_network(1, way.clone(), &network).await;
    let (_, mut state) = alice.relays().remove(0);
    let connected = state.wait_for(|state| *state == RelayState::Connected);
    soon("a connection", connected).await.unwrap();
    network.up();
    let dialed = state.wait_for(|state| *state == RelayState::Connecting);
    soon("the next", dialed).await.unwrap();
}
