//! A node on a host, the stream of messages that it says to its peer, and what it hears of the
//! other's: nothing lost, nothing twice, all in order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use outlive::{
    ChannelId, Error, Identity, Inbox, NetworkMonitor, Node, Padding, PeerId, Session, SessionState,
};
use outlive_storage::MemoryStore;
// Networks that are away take their time.
pub(crate) use outlive_testing::{LONG_PATIENCE, eventually as soon};
use outlive_transports::{Quic, WebRtc, WebSocketRelay};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::host::Host;

const CHAT: ChannelId = ChannelId::MESSAGES;

/// Messages that are said and not heard before no more are said: what an app that shows a backlog
/// would do, and no test here is about a million of them.
const AHEAD: u64 = 2_000;

/// How often it is looked what went over a link: timers here know nothing shorter.
const LOOK: Duration = Duration::from_millis(1);

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

/// What a stream of messages consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    /// The time from one message to the next.
    pub(crate) every: Duration,
    /// Bytes of each.
    pub(crate) bytes: usize,
}

/// What makes a peer's direct links.
pub(crate) enum Direct {
    Quic(Quic),
    WebRtc(WebRtc),
}

/// A line a hundredth of a second.
pub(crate) const CHATTER: Talk = Talk {
    every: Duration::from_millis(10),
    bytes: 100,
};

/// When each of several things was, in their order.
type Moments = Arc<Mutex<Vec<Instant>>>;

fn note(moments: &Moments) {
    let mut moments = moments.lock().unwrap_or_else(PoisonError::into_inner);
    moments.push(Instant::now());
}

pub(crate) struct Peer {
    pub(crate) host: Host,
    pub(crate) network: NetworkMonitor,
    node: Node,
    pub(crate) session: Session,
    /// When it said each of its messages.
    spoke: Moments,
    /// When it heard each of the other's.
    heard: Moments,
    listening: JoinHandle<Result<(), Error>>,
    /// How many it has heard of.
    count: watch::Receiver<u64>,
    said: u64,
    talking: Option<(watch::Sender<bool>, JoinHandle<u64>)>,
}

impl Peer {
    /// Starts a node on a host, as peer 1 or 2.
    pub(crate) async fn start(
        host: Host,
        n: u8,
        relay: String,
        direct: Direct,
        network: NetworkMonitor,
        padding: Padding,
    ) -> Self {
        let monitor = network.clone();
        let (node, session, inbox) = host
            .run(async move {
                let relay = WebSocketRelay::new(&relay).expect("an address");
                let node = Node::builder()
                    .identity(identity(n))
                    .store(MemoryStore::new())
                    .transport(relay)
                    .network(monitor)
                    .padding(padding);
                let node = match direct {
                    Direct::Quic(quic) => node.direct(quic),
                    Direct::WebRtc(webrtc) => node.negotiated(webrtc),
                };
                let node = node.start().await.expect("a node");
                let peer: PeerId = identity(3 - n).peer_id();
                let session = node.session(peer).await.expect("a session");
                let inbox = session.inbox(CHAT).expect("its inbox");
                (node, session, inbox)
            })
            .await;
        let heard = Moments::default();
        let (counted, count) = watch::channel(0);
        let listening = host.start(listen(inbox, heard.clone(), counted));
        Self {
            host,
            network,
            node,
            session,
            spoke: Moments::default(),
            heard,
            listening,
            count,
            said: 0,
            talking: None,
        }
    }

    /// Begins to say messages. `heard` is how many the peer has heard.
    pub(crate) fn talk(&mut self, talk: Talk, heard: watch::Receiver<u64>) {
        let (stop, stopped) = watch::channel(false);
        let (session, spoke) = (self.session.clone(), self.spoke.clone());
        let say = say(session, talk, spoke, self.said, heard, stopped);
        self.talking = Some((stop, self.host.start(say)));
    }

    /// Ends that, and returns how many were said in all.
    pub(crate) async fn hush(&mut self) -> u64 {
        if let Some((stop, talking)) = self.talking.take() {
            stop.send_replace(true);
            self.said = soon("the last message", talking).await.expect("no panic");
        }
        self.said
    }

    /// How many messages it has heard.
    pub(crate) fn count(&self) -> watch::Receiver<u64> {
        self.count.clone()
    }

    /// Until it has heard so many.
    pub(crate) async fn until_heard(&mut self, many: u64) {
        let heard = self.count.wait_for(|count| *count >= many);
        let heard = soon("messages", heard).await.is_ok();
        // Else its receiver has found something wrong, and says what.
        if !heard {
            self.listening().await;
        }
    }

    /// Until it has heard so many more than it has now.
    pub(crate) async fn hear_more(&mut self, many: u64) {
        let now = *self.count.borrow();
        self.until_heard(now + many).await;
    }

    /// When it heard the first message after that moment.
    pub(crate) async fn heard_after(&mut self, moment: Instant) -> Instant {
        loop {
            let heard = {
                let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.iter().copied().find(|at| *at > moment)
            };
            match heard {
                Some(at) => return at,
                None => self.hear_more(1).await,
            }
        }
    }

    /// When it sends a message of so many bytes over the relay, from now on: the last moment at which
    /// it had not. What is smaller is no message.
    pub(crate) fn relayed(&self, bytes: usize) -> JoinHandle<Instant> {
        let session = self.session.clone();
        let sent = move || {
            let traffic = session.traffic();
            traffic.get("relay").map_or(0, |relay| relay.bytes_sent)
        };
        let (mut known, mut at) = (sent(), Instant::now());
        self.host.start(async move {
            let mut look = tokio::time::interval(LOOK);
            loop {
                look.tick().await;
                let (now, seen) = (Instant::now(), sent());
                if seen - known >= bytes as u64 {
                    return at;
                }
                (known, at) = (seen, now);
            }
        })
    }

    async fn listening(&mut self) {
        let ended = soon("the receiver", &mut self.listening).await;
        match ended {
            Ok(ended) => panic!("the inbox ended: {ended:?}"),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The longest time without a message, from that moment on until now.
    pub(crate) fn silence_since(&self, since: Instant) -> Duration {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let after = heard.iter().copied().filter(|at| *at > since);
        let (mut before, mut longest) = (since, Duration::ZERO);
        for at in after.chain([Instant::now()]) {
            longest = longest.max(at - before);
            before = at;
        }
        longest
    }

    /// The longest that what it said since then took to the other, as far as that has heard it.
    pub(crate) fn longest_way(&self, other: &Self, since: Instant) -> Duration {
        let spoke = self.spoke.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = other.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let ways = spoke.iter().zip(heard.iter());
        let ways = ways.filter(|(spoke, _)| **spoke >= since);
        let ways = ways.map(|(spoke, heard)| heard.saturating_duration_since(*spoke));
        ways.max().expect("it said something since")
    }

    pub(crate) async fn until(&self, what: &str, is: impl FnMut(&SessionState) -> bool) {
        let mut state = self.session.state();
        let reached = tokio::time::timeout(LONG_PATIENCE, state.wait_for(is)).await;
        if !matches!(reached, Ok(Ok(_))) {
            panic!(
                "{} waited too long for {what}: {:?}",
                self.host.name(),
                *self.session.state().borrow()
            );
        }
    }

    /// Ends the node. Returns with nothing of it left.
    pub(crate) async fn stop(self) {
        self.listening.abort();
        drop(self.session);
        let node = self.node;
        let stopped = self.host.run(async move { node.shutdown().await });
        let stopped = soon("the node to stop", stopped).await;
        stopped.expect("it stops");
    }
}

/// Says messages, each with its number, until it is to stop. Returns the number of the next.
async fn say(
    session: Session,
    talk: Talk,
    spoke: Moments,
    mut next: u64,
    mut heard: watch::Receiver<u64>,
    mut stop: watch::Receiver<bool>,
) -> u64 {
    let mut turn = tokio::time::interval(talk.every);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let may = async |heard: &mut watch::Receiver<u64>, next: u64| {
        // Nobody hears any more: the other end says why.
        let _ = heard.wait_for(|heard| heard + AHEAD > next).await;
    };
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return next,
            () = may(&mut heard, next) => {}
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return next,
            _ = turn.tick() => {}
        }
        let mut payload = next.to_be_bytes().to_vec();
        payload.resize(talk.bytes.max(8), 0);
        note(&spoke);
        let queued = session.send(CHAT, payload).await;
        drop(queued.expect("room in the outbox"));
        next += 1;
    }
}

async fn listen(mut inbox: Inbox, heard: Moments, count: watch::Sender<u64>) -> Result<(), Error> {
    for expected in 0.. {
        let delivery = inbox.next().await?;
        let number = delivery.payload().first_chunk().copied();
        let number = number.map(u64::from_be_bytes);
        assert_eq!(number, Some(expected), "lost, doubled or out of order");
        assert!(!delivery.redelivered(), "{expected} came twice");
        delivery.commit().await?;
        note(&heard);
        count.send_replace(expected + 1);
    }
    Ok(())
}
