//! A connection between us and a foreign peer, from the first description to the end.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::limits::CANDIDATES;
use outlive_core::transport::{
    Lane, NegotiatedConnection, NegotiatedEvent, NegotiatedLink, NegotiatedTransport,
    TransportError,
};
use outlive_core::wire::signal::{Answer, Candidate, Offer, Signal};
use outlive_core::{Negotiation, Round};
use outlive_transports::WebRtc;

use crate::foreign::Foreign;
use crate::messages::{COUNT, Whose, message};

/// How long a test may wait for anything. It is reached only if that never comes.
const PATIENCE: Duration = Duration::from_secs(120);

const FIRST: Negotiation = Negotiation {
    round: Round(1),
    run: 1,
};

pub(crate) struct Call {
    ours: Box<dyn NegotiatedConnection>,
    pub(crate) theirs: Foreign,
    /// How many candidates they told, the word that there are no more included.
    candidates: usize,
    /// Those that we could not use.
    pub(crate) refused: Vec<TransportError>,
}

/// What becomes of a call.
#[derive(Debug)]
enum Happened {
    /// At our end.
    Here(NegotiatedEvent),
    /// They have heard all that there was to hear.
    Heard,
    /// They see the end of it.
    Closed,
}

impl Call {
    /// We offer, or they do.
    pub(crate) async fn begin(theirs: Foreign, we_offer: bool) -> Self {
        if !we_offer {
            return Self::theirs(theirs, "{}").await;
        }
        let mut call = Self::new(theirs).await;
        call.offer(false).await;
        call
    }

    /// They offer, with a data channel that is made with these settings.
    pub(crate) async fn theirs(theirs: Foreign, settings: &str) -> Self {
        let mut call = Self::new(theirs).await;
        call.theirs.say("make", settings).await;
        call
    }

    async fn new(theirs: Foreign) -> Self {
        let loopback = WebRtc::new().bind_to(([127, 0, 0, 1], 0).into());
        Self {
            ours: loopback.connection().await.expect("a connection"),
            theirs,
            candidates: 0,
            refused: Vec::new(),
        }
    }

    pub(crate) async fn offer(&mut self, restart: bool) {
        let offer = self.ours.offer(FIRST, restart).await.expect("an offer");
        self.theirs.say("offer", &offer).await;
    }

    /// Passes on what both have to say, until something comes of it.
    async fn next(&mut self) -> Happened {
        let next = async {
            loop {
                tokio::select! {
                    (kind, text) = self.theirs.hear() => {
                        if let Some(happened) = self.told(&kind, text).await {
                            return happened;
                        }
                    }
                    event = self.ours.event() => match event {
                        NegotiatedEvent::Found { candidate, .. } => {
                            self.theirs.say("candidate", &candidate).await;
                        }
                        event => return Happened::Here(event),
                    },
                }
            }
        };
        let next = tokio::time::timeout(PATIENCE, next).await;
        next.expect("something happens")
    }

    async fn told(&mut self, kind: &str, text: String) -> Option<Happened> {
        match kind {
            "offer" => {
                let sdp = as_offer(text);
                let answer = self.ours.apply_offer(FIRST, sdp).await;
                self.theirs.say("answer", &answer.expect("an answer")).await;
            }
            "answer" => {
                let applied = self.ours.apply_answer(as_answer(text)).await;
                applied.expect("it can be used");
            }
            "candidate" => {
                self.candidates += 1;
                assert!(self.candidates <= CANDIDATES, "they have too many");
                if let Err(error) = self.ours.add_candidate(as_candidate(text)).await {
                    self.refused.push(error);
                }
            }
            "heard" => return Some(Happened::Heard),
            "closed" => return Some(Happened::Closed),
            other => panic!("they say {other}: {text}"),
        }
        None
    }

    /// The link that comes of it.
    pub(crate) async fn up(&mut self) -> NegotiatedLink {
        match self.next().await {
            Happened::Here(NegotiatedEvent::Up { link, .. }) => link,
            other => panic!("a link, not {other:?}"),
        }
    }

    /// The link carries data again.
    pub(crate) async fn comes_back(&mut self) {
        match self.next().await {
            Happened::Here(NegotiatedEvent::Back { .. }) => {}
            other => panic!("it is back, not {other:?}"),
        }
    }

    /// No link comes of it: they break the protocol.
    pub(crate) async fn comes_to_nothing(mut self) {
        match self.next().await {
            Happened::Here(NegotiatedEvent::Failed { error, .. }) => {
                assert!(matches!(error, TransportError::Protocol(_)), "{error}");
            }
            other => panic!("an end, not {other:?}"),
        }
        self.end().await;
    }

    /// Both say all messages, and hear those of the other, whole and in order.
    pub(crate) async fn talk(&mut self, link: &mut NegotiatedLink) {
        let NegotiatedLink {
            sender, receiver, ..
        } = link;
        let saying = async {
            for n in 0..COUNT {
                let packet = Bytes::from(message(n, Whose::Ours));
                let sent = sender.send(Lane::Interactive, vec![packet]).await;
                sent.expect("sent");
            }
        };
        let hearing = async {
            for n in 0..COUNT {
                let heard = receiver.receive().await.expect("a message");
                assert!(
                    heard == message(n, Whose::Theirs),
                    "message {n} is another: {} bytes",
                    heard.len()
                );
            }
        };
        let watching = async {
            loop {
                match self.next().await {
                    Happened::Heard => break,
                    // A busy machine may hold one of us up for as long as that takes.
                    Happened::Here(
                        NegotiatedEvent::Silent { .. } | NegotiatedEvent::Back { .. },
                    ) => {}
                    other => panic!("they hear us, not {other:?}"),
                }
            }
        };
        let all = async { tokio::join!(saying, hearing, watching) };
        let all = tokio::time::timeout(PATIENCE, all).await;
        all.expect("all is said and heard");
    }

    /// We close it, and they see that.
    pub(crate) async fn we_close(mut self, mut link: NegotiatedLink) {
        link.sender.close().await;
        self.ours.close().await;
        drop(link);
        loop {
            match self.next().await {
                Happened::Closed => break,
                Happened::Here(NegotiatedEvent::Failed { .. }) => {}
                other => panic!("an end, not {other:?}"),
            }
        }
        self.theirs.end().await;
    }

    /// They close it, and we see that.
    pub(crate) async fn they_close(mut self, mut link: NegotiatedLink) {
        self.theirs.say("close", "").await;
        let ended = tokio::time::timeout(PATIENCE, link.receiver.receive()).await;
        let ended = ended.expect("it ends");
        assert!(matches!(ended, Err(TransportError::Finished)), "{ended:?}");
        drop(link);
        self.end().await;
    }

    async fn end(mut self) {
        self.ours.close().await;
        self.theirs.end().await;
    }
}

// Whatever they say goes as a session would carry it, or not at all.

fn carried(signal: Signal) -> Signal {
    let carried = Signal::decode(&signal.to_bytes());
    let carried = carried.expect("it fits").expect("it is known");
    assert_eq!(carried, signal);
    carried
}

fn as_offer(sdp: String) -> String {
    let offer = Offer {
        negotiation: FIRST,
        restarts: None,
        sdp,
    };
    match carried(Signal::Offer(offer)) {
        Signal::Offer(offer) => offer.sdp,
        other => panic!("an offer, not {other:?}"),
    }
}

fn as_answer(sdp: String) -> String {
    let answer = Answer {
        negotiation: FIRST,
        own: Round(0),
        run: 1,
        sdp,
    };
    match carried(Signal::Answer(answer)) {
        Signal::Answer(answer) => answer.sdp,
        other => panic!("an answer, not {other:?}"),
    }
}

fn as_candidate(candidate: String) -> String {
    let candidate = Candidate {
        negotiation: FIRST,
        run: 1,
        candidate,
    };
    match carried(Signal::Candidate(candidate)) {
        Signal::Candidate(candidate) => candidate.candidate,
        other => panic!("a candidate, not {other:?}"),
    }
}
