//! Asking STUN servers ([RFC 8489]) where the node's socket is seen from outside. Over that very
//! socket: a NAT gives another an address of its own.
//!
//! The first byte of a packet tells STUN from QUIC ([RFC 9443]): 0 to 3 is STUN, and QUIC never
//! begins so as long as nobody greases its fixed bit, which is why that is switched off.
//!
//! [RFC 8489]: https://www.rfc-editor.org/rfc/rfc8489
//! [RFC 9443]: https://www.rfc-editor.org/rfc/rfc9443

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use stun_types::attribute::XorMappedAddress;
use stun_types::message::{
    BINDING, Message, MessageClass, MessageWrite, MessageWriteVec, TransactionId,
};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::debug;

use super::socket::Socket;
use super::{addresses, plain};

/// STUN servers of a node. More are left out: any one that answers is enough.
pub(super) const SERVERS: usize = 4;

/// First wait for an answer before asking again. Each wait is twice the one before (RFC 8489,
/// section 6.2.1).
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How long finding the name of a server may take.
const NAME_TIME: Duration = Duration::from_secs(1);

/// How long all servers have together, names included. After two repetitions one is as good as gone,
/// and dialing waits for this.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// How long an answer over IPv6 is waited for when there is one over IPv4, and the other way round, beside twice
/// the time that it took: so long that it may be asked for once more. Many hosts have addresses of a family
/// from which nothing leads on.
const OTHER_FAMILY: Duration = ASK_AGAIN;

/// How often in a row the server that answered last may stay silent. Until then the socket counts as seen
/// where it was: an answer is lost now and then, and peers would be told that we have moved.
const MISSES: u32 = 3;

/// Questions under way on one socket. One more is not asked.
const QUESTIONS: usize = 64;

/// Whether a packet is STUN.
pub(super) fn is_stun(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| *first < 4)
}

/// The questions that were asked over a socket and are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<Vec<Question>>);

#[derive(Debug)]
struct Question {
    server: SocketAddr,
    id: TransactionId,
    answer: oneshot::Sender<SocketAddr>,
}

impl Questions {
    fn with<T>(&self, change: impl FnOnce(&mut Vec<Question>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a packet for an answer if it is one: from the server that was asked, to a question that
    /// was asked. Everything else is nothing to us.
    pub(super) fn take(&self, from: SocketAddr, packet: &[u8]) {
        let Ok(message) = Message::from_bytes(packet) else {
            return;
        };
        if !message.has_class(MessageClass::Success) || !message.has_method(BINDING) {
            return;
        }
        let id = message.transaction_id();
        let Ok(seen) = message.attribute::<XorMappedAddress>() else {
            return;
        };
        let question = self.with(|questions| {
            let found = questions
                .iter()
                .position(|question| question.id == id && question.server == plain(from));
            found.map(|found| questions.swap_remove(found))
        });
        if let Some(question) = question {
            // Whoever asked may have given up.
            let _ = question.answer.send(plain(seen.addr(id)));
        }
    }
}

/// Where servers saw a socket: over IPv4, and over IPv6.
#[derive(Debug, Default)]
pub(super) struct Sightings(Mutex<[Option<Sighting>; 2]>);

/// Where a server saw the socket.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    server: SocketAddr,
    address: SocketAddr,
    /// How often the server has not answered since.
    misses: u32,
}

impl Sightings {
    fn with<T>(&self, change: impl FnOnce(&mut [Option<Sighting>; 2]) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A question as long as somebody waits for its answer.
struct Asked<'a> {
    questions: &'a Questions,
    id: TransactionId,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.questions
            .with(|questions| questions.retain(|question| question.id != self.id));
    }
}

/// Asks the servers and returns the addresses at which they see the socket. Of those for IPv4 and for
/// IPv6 the one that answered last is asked alone: a NAT may show each of them another address. While there
/// is none, or it is given up, all are asked at once, and the first answer counts. Done after two seconds
/// in any case, and soon after one family has answered. Cancellation-safe.
pub(super) async fn ask(socket: &Socket, servers: &[String]) -> Vec<SocketAddr> {
    // A server that has answered before is not hurried.
    let (deadline, patient) = (Deadline::new(), Deadline::new());
    let Ok(local) = socket.local() else {
        return Vec::new();
    };
    let given_up = |last: Sighting| last.misses + 1 >= MISSES;
    let [last_v4, last_v6] = socket.sightings().with(|last| *last);
    let mut all = Vec::new();
    if [last_v4, last_v6]
        .iter()
        .any(|last| last.is_none_or(given_up))
    {
        let found = servers.iter().map(|server| found(server, local));
        all = futures_util::future::join_all(found).await.concat();
    }
    let (v4, v6) = all.into_iter().partition(SocketAddr::is_ipv4);
    let look = async |last: Option<Sighting>, all| {
        let seen = match last {
            Some(last) if !given_up(last) => Some(last.again(socket, &patient).await),
            _ => first_answer(socket, all, &deadline).await,
        };
        if seen.is_some() {
            deadline.answered();
        }
        seen
    };
    let (v4, v6) = futures_util::future::join(look(last_v4, v4), look(last_v6, v6)).await;
    socket.sightings().with(|last| *last = [v4, v6]);
    let seen = [v4, v6].into_iter().flatten().map(|seen| seen.address);
    seen.filter(|address| addresses::can_be_dialed(*address, local))
        .collect()
}

impl Sighting {
    /// What the same server says now. If it says nothing, what it said before.
    async fn again(self, socket: &Socket, deadline: &Deadline) -> Self {
        let answer = first_answer(socket, vec![self.server], deadline).await;
        answer.unwrap_or(Self {
            misses: self.misses + 1,
            ..self
        })
    }
}

/// Until when answers are waited for.
struct Deadline {
    began: Instant,
    at: watch::Sender<Instant>,
}

impl Deadline {
    fn new() -> Self {
        let began = Instant::now();
        let at = watch::Sender::new(began + ANSWER_TIME);
        Self { began, at }
    }

    /// One has come: those over the other family are not waited for much longer.
    fn answered(&self) {
        let now = Instant::now();
        let soon = now + (now - self.began) * 2 + OTHER_FAMILY;
        self.at.send_modify(|at| *at = soon.min(*at));
    }

    async fn passed(&self) {
        let mut at = self.at.subscribe();
        loop {
            let deadline = *at.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return,
                // It is here as long as this is.
                _ = at.changed() => {}
            }
        }
    }
}

/// What the first of the servers says.
async fn first_answer(
    socket: &Socket,
    servers: Vec<SocketAddr>,
    deadline: &Deadline,
) -> Option<Sighting> {
    let asked = servers.into_iter().map(async |server| {
        let address = ask_address(socket, server).await?;
        Some(Sighting {
            server,
            address,
            misses: 0,
        })
    });
    let mut answers: FuturesUnordered<_> = asked.collect();
    loop {
        tokio::select! {
            biased;
            answer = answers.next() => match answer {
                Some(Some(seen)) => return Some(seen),
                Some(None) => {}
                None => return None,
            },
            () = deadline.passed() => {
                debug!("no STUN server answered in time");
                return None;
            }
        }
    }
}

/// Where a server is, over IPv4 and IPv6 as far as it has them and the socket does too.
async fn found(server: &str, local: SocketAddr) -> Vec<SocketAddr> {
    let found = tokio::time::timeout(NAME_TIME, tokio::net::lookup_host(server)).await;
    let found: Vec<SocketAddr> = match found {
        Ok(Ok(found)) => found
            .map(plain)
            .filter(|address| addresses::can_be_dialed(*address, local))
            .collect(),
        Ok(Err(error)) => {
            debug!(server, %error, "the name of a STUN server is not found");
            return Vec::new();
        }
        Err(_) => {
            debug!(server, "the name of a STUN server is not found in time");
            return Vec::new();
        }
    };
    let v4 = found.iter().find(|address| address.is_ipv4());
    let v6 = found.iter().find(|address| address.is_ipv6());
    [v4, v6].into_iter().flatten().copied().collect()
}

/// Asks, and asks again while nothing comes. Without an answer it goes on until it is dropped.
async fn ask_address(socket: &Socket, server: SocketAddr) -> Option<SocketAddr> {
    let request = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
    let id = Message::from_bytes(&request).ok()?.transaction_id();
    let questions = socket.questions();
    let (answer, mut answered) = oneshot::channel();
    let room = questions.with(|questions| {
        let room = questions.len() < QUESTIONS;
        if room {
            questions.push(Question { server, id, answer });
        }
        room
    });
    let _asked = Asked { questions, id };
    if !room {
        return None;
    }
    let mut wait = ASK_AGAIN;
    loop {
        if let Err(error) = socket.send(&request, server).await {
            debug!(%server, %error, "a STUN server can't be reached");
            return None;
        }
        match tokio::time::timeout(wait, &mut answered).await {
            Ok(seen) => return seen.ok(),
            Err(_) => wait *= 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "192.0.2.1:3478";
    const SEEN: &str = "198.51.100.7:4433";

    fn asked(questions: &Questions, id: u128) -> oneshot::Receiver<SocketAddr> {
        let (answer, answered) = oneshot::channel();
        questions.with(|questions| {
            questions.push(Question {
                server: SERVER.parse().expect("an address"),
                id: id.into(),
                answer,
            });
        });
        answered
    }

    /// An answer as RFC 5769 shows one, put together by hand.
    fn answer(kind: u16, id: u128) -> Vec<u8> {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 12, 0x21, 0x12, 0xa4, 0x42]);
        bytes.extend(&id.to_be_bytes()[4..]);
        bytes.extend([0, 0x20, 0, 8, 0, 1]);
        bytes.extend((4433_u16 ^ 0x2112).to_be_bytes());
        let ip = u32::from_be_bytes([198, 51, 100, 7]);
        bytes.extend((ip ^ 0x2112_a442).to_be_bytes());
        bytes
    }

    #[test]
    fn only_the_server_that_was_asked_answers_and_only_what_was_asked() {
        let questions = Questions::default();
        let mut answered = asked(&questions, 5);
        let server: SocketAddr = SERVER.parse().expect("an address");
        let other: SocketAddr = "192.0.2.1:3479".parse().expect("an address");
        let good = answer(0x0101, 5);
        questions.take(other, &good);
        questions.take(server, &answer(0x0101, 6));
        // A request, an indication and an error.
        for kind in [0x0001, 0x0011, 0x0111] {
            questions.take(server, &answer(kind, 5));
        }
        for cut in 0..good.len() {
            questions.take(server, &good[..cut]);
        }
        assert!(answered.try_recv().is_err());
        questions.take(server, &good);
        assert_eq!(answered.try_recv(), Ok(SEEN.parse().expect("an address")));
        assert!(questions.with(|questions| questions.is_empty()));
        // The same again is nothing.
        questions.take(server, &good);
    }
}
