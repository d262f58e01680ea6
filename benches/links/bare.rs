//! The transports by themselves, without a session.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use outlive::Identity;
use outlive_core::transport::{
    DirectEndpoint, DirectReceiver, DirectSender, DirectTransport, Lane, NegotiatedEvent,
    NegotiatedTransport,
};
use outlive_core::{Negotiation, Round};
use outlive_transports::{Quic, WebRtc};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::rows::{Ends, Goal, Goodput, Kind};

/// Bytes of a packet: what a segment of a session has.
const PACKET: usize = 16 * 1024;

/// Packets handed over at once.
const AT_ONCE: usize = 8;

/// One end of a link.
pub(crate) struct End {
    sender: Box<dyn DirectSender>,
    receiver: Box<dyn DirectReceiver>,
    /// What the link lives by.
    _endpoint: Option<Arc<dyn DirectEndpoint>>,
    _events: Option<Events>,
}

/// A connection whose events somebody hears, as long as this lives.
struct Events(JoinHandle<()>);

impl Drop for Events {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn link(ends: &Ends, kind: Kind) -> anyhow::Result<[End; 2]> {
    match kind {
        Kind::Quic => quic(ends).await,
        Kind::WebRtc => webrtc(ends).await,
    }
}

async fn quic(ends: &Ends) -> anyhow::Result<[End; 2]> {
    let identities = [1, 2].map(|n| Identity::from_seed([n; 32]));
    let peer = identities[1].peer_id();
    let [dialer, acceptor] = identities;
    let bind = async |of: usize, identity: Identity| {
        let address = (Ends::ADDRESSES[of], 4433).into();
        let quic = Quic::new().bind_to(address);
        ends.hosts[of]
            .run(async move { quic.bind(&identity).await })
            .await
    };
    let (near, far) = (bind(0, dialer).await?, bind(1, acceptor).await?);
    let accepting = {
        let far = far.clone();
        ends.hosts[1].start(async move { far.accept().await })
    };
    let dialing = {
        let near = near.clone();
        let addresses = [(Ends::ADDRESSES[1], 4433).into()];
        ends.hosts[0].start(async move { near.dial(peer, &addresses).await })
    };
    let (near_link, far_link) = (dialing.await??, accepting.await??);
    Ok(
        [(near_link, near), (far_link, far)].map(|(link, endpoint)| End {
            sender: link.sender,
            receiver: link.receiver,
            _endpoint: Some(endpoint),
            _events: None,
        }),
    )
}

/// How often a bare link is tried. In the worst weather here one in three does not come up; a session
/// has another negotiated then.
const ATTEMPTS: usize = 5;

/// What one end of a connection says to the other.
enum Word {
    Offer(String),
    Answer(String),
    Candidate(String),
}

async fn webrtc(ends: &Ends) -> anyhow::Result<[End; 2]> {
    for _ in 1..ATTEMPTS {
        match connect(ends).await {
            Ok(link) => return Ok(link),
            Err(error) => eprintln!("a bare link did not come up, and is tried again: {error}"),
        }
    }
    connect(ends).await
}

async fn connect(ends: &Ends) -> anyhow::Result<[End; 2]> {
    let (to_far, from_near) = mpsc::channel(64);
    let (to_near, from_far) = mpsc::channel(64);
    let near = ends.hosts[0].start(negotiate(true, to_far, from_far));
    let far = ends.hosts[1].start(negotiate(false, to_near, from_near));
    Ok([near.await??, far.await??])
}

async fn negotiate(
    offers: bool,
    say: mpsc::Sender<Word>,
    mut hear: mpsc::Receiver<Word>,
) -> anyhow::Result<End> {
    let mut connection = WebRtc::new().connection().await?;
    let negotiation = Negotiation {
        round: Round::at_start(1),
        run: 1,
    };
    if offers {
        let sdp = connection.offer(negotiation, false).await?;
        say.send(Word::Offer(sdp)).await?;
    }
    let link = loop {
        tokio::select! {
            word = hear.recv() => match word.context("the other end is gone")? {
                Word::Offer(sdp) => {
                    let answer = connection.apply_offer(negotiation, sdp).await?;
                    say.send(Word::Answer(answer)).await?;
                }
                Word::Answer(sdp) => connection.apply_answer(sdp).await?,
                Word::Candidate(candidate) => connection.add_candidate(candidate).await?,
            },
            event = connection.event() => match event {
                NegotiatedEvent::Found { candidate, .. } => {
                    // Up without it, the other end has no use for it.
                    let _ = say.send(Word::Candidate(candidate)).await;
                }
                NegotiatedEvent::Up { link, .. } => break link,
                NegotiatedEvent::Failed { error, .. } => return Err(error.into()),
                // In bad weather it may seem lost before it is found.
                _ => {}
            },
        }
    };
    let events = tokio::spawn(async move {
        let _said = (say, hear);
        loop {
            if let NegotiatedEvent::Failed { .. } = connection.event().await {
                return;
            }
        }
    });
    Ok(End {
        sender: link.sender,
        receiver: link.receiver,
        _endpoint: None,
        _events: Some(Events(events)),
    })
}

/// Sends packets from one end until the goal is reached at the other.
pub(crate) async fn goodput(ends: &Ends, kind: Kind, goal: Goal) -> anyhow::Result<Goodput> {
    let [near, far] = link(ends, kind).await?;
    let End {
        sender,
        receiver: _near,
        _endpoint,
        _events,
    } = near;
    let began = Instant::now();
    let sending = ends.hosts[0].start(async move {
        let _kept = (_near, _endpoint, _events);
        let packet = Bytes::from(vec![0xa5; PACKET]);
        while sender
            .send(Lane::Bulk, vec![packet.clone(); AT_ONCE])
            .await
            .is_ok()
        {}
    });
    let came = ends.hosts[1].run(async move {
        let mut far = far;
        let mut bytes = 0;
        while let Some(left) = goal.left(began, bytes) {
            match tokio::time::timeout(left, far.receiver.receive()).await {
                Ok(packet) => bytes += packet?.len() as u64,
                Err(_) => break,
            }
        }
        anyhow::Ok(Goodput {
            bytes,
            took: began.elapsed(),
        })
    });
    let came = came.await;
    sending.abort();
    came
}

/// Whether what is said is written before, by either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    None,
    /// The least that two sessions need (I4): one write before a packet leaves and one before what came
    /// is told, each given to the system.
    Writes,
}

/// Bytes of a write: what a session writes with a small message.
const WRITE: usize = 600;

/// What one end writes to.
struct Journal(Option<File>);

impl Journal {
    fn new(durability: Durability) -> std::io::Result<Self> {
        Ok(Self(match durability {
            Durability::None => None,
            Durability::Writes => Some(tempfile::tempfile()?),
        }))
    }

    fn write(&mut self) -> std::io::Result<()> {
        self.0
            .as_mut()
            .map_or(Ok(()), |file| file.write_all(&[0xa5; WRITE]))
    }
}

/// Round trips of a small packet.
pub(crate) async fn round_trips(
    ends: &Ends,
    kind: Kind,
    time: Duration,
    durability: Durability,
) -> anyhow::Result<Vec<Duration>> {
    let [mut near, mut far] = link(ends, kind).await?;
    let (mut here, mut there) = (Journal::new(durability)?, Journal::new(durability)?);
    let echo = ends.hosts[1].start(async move {
        loop {
            let packet = far.receiver.receive().await?;
            there.write()?;
            there.write()?;
            far.sender.send(Lane::Interactive, vec![packet]).await?;
        }
        #[expect(unreachable_code, reason = "it says what the errors are")]
        anyhow::Ok(())
    });
    let took = ends.hosts[0].run(async move {
        let (began, mut took) = (Instant::now(), Vec::new());
        while began.elapsed() < time {
            let said = Instant::now();
            let packet = Bytes::from_static(&[0xa5; 32]);
            here.write()?;
            near.sender.send(Lane::Interactive, vec![packet]).await?;
            near.receiver.receive().await?;
            here.write()?;
            took.push(said.elapsed());
        }
        anyhow::Ok(took)
    });
    let took = took.await;
    echo.abort();
    took
}
