//! A UDP socket that answers from the address at which it was asked.
//!
//! Left to itself, the system of a host with several chooses one of them. Whoever asked another takes no
//! answer from there, nor does a NAT let one in.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Bytes that are received at once. Some systems put packets of one sender together, up to so many.
pub(super) const RECEIVE_BYTES: usize = 64 * 1024;

pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// Who asked, and at which address, if the system tells that.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) from: SocketAddr,
    at: Option<IpAddr>,
}

impl Socket {
    pub(super) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket, state })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next packet, or several that one sender sent in a row. Cancellation-safe.
    pub(super) async fn receive<'a>(
        &self,
        buffer: &'a mut [u8],
    ) -> io::Result<(Asker, impl Iterator<Item = &'a [u8]> + use<'a>)> {
        let mut received = [RecvMeta::default()];
        let receiving = || {
            let mut buffers = [IoSliceMut::new(buffer)];
            let socket = (&self.socket).into();
            self.state.recv(socket, &mut buffers, &mut received)
        };
        self.socket.async_io(Interest::READABLE, receiving).await?;
        let [received] = received;
        let asker = Asker {
            from: received.addr,
            at: received.dst_ip,
        };
        let bytes = buffer.get(..received.len).unwrap_or_default();
        // An empty packet has a stride of zero.
        Ok((asker, bytes.chunks(received.stride.max(1))))
    }

    /// Answers, unless there is no room to send.
    pub(super) fn answer(&self, asker: Asker, contents: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: asker.from,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: asker.at,
        };
        let sending = || self.state.try_send((&self.socket).into(), &transmit);
        self.socket.try_io(Interest::WRITABLE, sending)
    }
}
