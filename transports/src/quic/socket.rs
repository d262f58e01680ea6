//! The node's UDP socket: QUIC's, and STUN's beside it.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::io::Interest;
use tracing::warn;

use crate::address::is_gone;

use super::stun::{Questions, Sightings, is_stun};

/// Bytes the system is asked to hold for the socket, in each direction. It may grant less; then more
/// is lost and sent again at high rates.
const SYSTEM_BUFFER: usize = 2 * 1024 * 1024;

/// Addresses of this host that are remembered. Of more each is looked at whenever it is sent from.
const SOURCES: usize = 64;

/// How long one that was gone counts as such before it is looked at again. It may only be new: the system looks
/// for a second or two whether somebody else has it.
const GONE_AGAIN: Duration = Duration::from_secs(1);

/// A bound socket.
#[derive(Debug)]
pub(super) struct Socket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    questions: Questions,
    sightings: Sightings,
    sources: Sources,
}

impl Socket {
    /// Opens the socket: at `address` if one was asked for, else at all of the host's, IPv6 and
    /// IPv4. Where there is no IPv6, that is IPv4 alone.
    pub(super) fn open(address: Option<SocketAddr>) -> io::Result<Self> {
        if let Some(address) = address {
            return Self::new(bound(address, false)?);
        }
        let all = bound((Ipv6Addr::UNSPECIFIED, 0).into(), false).or_else(|error| {
            warn!(%error, "there is no IPv6 here; direct links use IPv4 alone");
            bound((Ipv4Addr::UNSPECIFIED, 0).into(), false)
        });
        Self::new(all?)
    }

    /// Opens another socket in the place of this one, if possible at the same port: peers know it,
    /// and those that dialed us find us nowhere else.
    pub(super) fn fresh(&self, address: Option<SocketAddr>) -> io::Result<Self> {
        let again = self.local().and_then(|local| {
            // For this moment alone the new one shares the port. For longer, any process of this host
            // could take the node's packets. The old one goes on sharing, which alone it can't: it may
            // be in use for a while, and the next one may be opened by then.
            let this = SockRef::from(&self.io);
            this.set_reuse_address(true)?;
            let again = bound(local, true);
            if again.is_err() {
                this.set_reuse_address(false)?;
            }
            again
        });
        match again {
            Ok(socket) => Self::new(socket),
            Err(error) => {
                warn!(%error, "the port can't be kept; links that were accepted are lost");
                Self::open(address)
            }
        }
    }

    fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self {
            state: UdpSocketState::new((&socket).into())?,
            io: tokio::net::UdpSocket::from_std(socket)?,
            questions: Questions::default(),
            sightings: Sightings::default(),
            sources: Sources::default(),
        })
    }

    /// Where it is bound.
    pub(super) fn local(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// What STUN servers were asked over it.
    pub(super) const fn questions(&self) -> &Questions {
        &self.questions
    }

    /// Where STUN servers saw it.
    pub(super) const fn sightings(&self) -> &Sightings {
        &self.sightings
    }

    /// Sends a packet that is not QUIC's.
    pub(super) async fn send(&self, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        let to = match (to, self.local()?) {
            (SocketAddr::V4(v4), SocketAddr::V6(_)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            (to, _) => to,
        };
        self.io.send_to(packet, to).await.map(drop)
    }

    /// Keeps what is STUN from QUIC.
    fn sort_out(&self, packets: &[u8], meta: &mut RecvMeta) {
        if is_stun(packets) {
            // The system may have joined several of one size.
            for packet in packets.chunks(meta.stride.max(1)) {
                self.questions.take(meta.addr, packet);
            }
            meta.len = 0;
        }
    }
}

/// Addresses from which something was to be sent, and since when they are known to be gone. A link that was
/// accepted goes on sending from the one at which it was, and over IPv6 the system's word that this is gone has
/// quinn send packets one by one from then on, those of all links.
#[derive(Debug, Default)]
struct Sources(Mutex<Vec<(IpAddr, Option<Instant>)>>);

impl Sources {
    fn is_gone(&self, ip: IpAddr) -> bool {
        if ip.is_ipv4() {
            return false;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter_mut().find(|(other, _)| *other == ip);
        match found {
            Some((_, None)) => false,
            Some((_, Some(since))) if since.elapsed() < GONE_AGAIN => true,
            Some((_, gone)) => {
                *gone = is_gone(ip).then(Instant::now);
                gone.is_some()
            }
            None => {
                let gone = is_gone(ip).then(Instant::now);
                if known.len() < SOURCES {
                    known.push((ip, gone));
                }
                gone.is_some()
            }
        }
    }
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // Less than asked for is no reason not to start.
    let _ = socket.set_recv_buffer_size(SYSTEM_BUFFER);
    let _ = socket.set_send_buffer_size(SYSTEM_BUFFER);
    socket.set_nonblocking(true)?;
    if shared {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if shared {
        socket.set_reuse_address(false)?;
    }
    Ok(socket.into())
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable {
            socket: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if transmit.src_ip.is_some_and(|ip| self.sources.is_gone(ip)) {
            return Ok(());
        }
        self.io.try_io(Interest::WRITABLE, || {
            self.state.send((&self.io).into(), transmit)
        })
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(context))?;
            let received = self.io.try_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), buffers, metas)
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(count) => {
                    for (buffer, meta) in buffers.iter().zip(&mut *metas).take(count) {
                        let length = meta.len;
                        self.sort_out(buffer.get(..length).unwrap_or_default(), meta);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits until the socket takes packets again. Each connection has its own, as each is woken.
struct Writable {
    socket: Arc<Socket>,
    waiting: Option<Waiting>,
}

impl std::fmt::Debug for Writable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.clone();
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(async move { socket.io.writable().await }));
        let writable = ready!(waiting.as_mut().poll(context));
        self.waiting = None;
        Poll::Ready(writable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_keeps_its_port_however_often_it_is_opened_anew() {
        let first = Socket::open(Some((Ipv4Addr::LOCALHOST, 0).into())).expect("a port");
        let port = first.local().expect("bound");
        let mut opened = vec![first];
        for _ in 0..3 {
            // Those before may still be in use.
            let next = opened.last().expect("the first").fresh(None);
            opened.push(next.expect("the same again"));
        }
        for socket in &opened {
            assert_eq!(socket.local().expect("bound"), port);
        }
        bound(port, true).expect_err("it is shared with nobody");
    }

    #[tokio::test]
    async fn what_is_sent_from_an_address_that_is_gone_costs_the_others_nothing() {
        let Ok(socket) = bound((Ipv6Addr::LOCALHOST, 0).into(), false) else {
            return eprintln!("skipped: there is no IPv6 here");
        };
        let socket = Socket::new(socket).expect("a socket");
        let segments = socket.max_transmit_segments();
        let contents = [0; 100];
        socket.io.writable().await.expect("a socket");
        let sent = socket.try_send(&Transmit {
            destination: (Ipv6Addr::LOCALHOST, 9).into(),
            ecn: None,
            contents: &contents,
            segment_size: Some(50),
            src_ip: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
        });
        sent.expect("no word of it");
        assert_eq!(socket.max_transmit_segments(), segments);
    }
}
