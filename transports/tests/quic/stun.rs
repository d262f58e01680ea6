//! What a node learns of its address from servers.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use outlive_core::transport::Lane;
use outlive_transports::Quic;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::{Node, hear, linked, loopback, node, node_of, number, packet, say};

const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Where the servers here say they see everybody.
const SEEN: [u8; 6] = [198, 51, 100, 7, 0x11, 0x51];

fn seen() -> SocketAddr {
    ([198, 51, 100, 7], 0x1151).into()
}

/// The answer to a binding request, by RFC 8489 and not by the crate under test.
fn answer(request: &[u8]) -> Vec<u8> {
    assert_eq!(request[..2], [0, 1], "a binding request");
    assert_eq!(request[4..8], MAGIC);
    let mut answer = vec![1, 1, 0, 12];
    answer.extend_from_slice(&request[4..20]);
    answer.extend([0, 0x20, 0, 8, 0, 1, SEEN[4] ^ MAGIC[0], SEEN[5] ^ MAGIC[1]]);
    answer.extend((0..4).map(|n| SEEN[n] ^ MAGIC[n]));
    answer
}

/// A server that does not answer the first `deaf` requests and calls who asks.
async fn server(
    tasks: &mut JoinSet<()>,
    deaf: usize,
) -> (String, tokio::sync::mpsc::UnboundedReceiver<SocketAddr>) {
    server_that(tasks, move |heard| heard > deaf).await
}

/// A server that answers a request, of which it is told the number, or does not.
async fn server_that(
    tasks: &mut JoinSet<()>,
    answers: impl Fn(usize) -> bool + Send + 'static,
) -> (String, tokio::sync::mpsc::UnboundedReceiver<SocketAddr>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("bound").to_string();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tasks.spawn(async move {
        let mut buffer = [0; 1_500];
        let mut heard = 0;
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            heard += 1;
            let _ = tell.send(from);
            if answers(heard) {
                let answer = answer(&buffer[..length]);
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_server_sees_the_socket_that_links_run_over() {
    let mut tasks = JoinSet::new();
    let (address, mut asks) = server(&mut tasks, 0).await;
    let quic = loopback().ask_stun(address);
    let (a, b) = (node_of(1, quic).await, node(2).await);
    let from = asks.recv().await.expect("it was asked");
    assert_eq!(a.addresses, [seen(), from]);
    // It is the one that peers dial, and a link over it is not disturbed by more questions.
    let at_port = Node {
        addresses: vec![from],
        ..a
    };
    let (mut dialed, mut accepted) = linked(&b, &at_port).await;
    for n in 0..100 {
        say(&mut accepted, Lane::Bulk, vec![packet(n, 60_000)]).await;
        let found = at_port.endpoint.addresses().await;
        assert_eq!(found, [seen(), from]);
        assert_eq!(number(&hear(&mut dialed).await), n);
    }
    // After a move it is asked from where the node is then.
    at_port.endpoint.network_changed().await.expect("a socket");
    assert_eq!(at_port.endpoint.addresses().await[0], seen());
}

#[tokio::test]
async fn a_question_that_gets_lost_is_asked_again() {
    let mut tasks = JoinSet::new();
    let (address, _asks) = server(&mut tasks, 2).await;
    let a = node_of(1, loopback().ask_stun(address)).await;
    assert_eq!(a.addresses[0], seen());
}

#[tokio::test]
async fn a_dead_server_takes_nothing_from_a_live_one() {
    let mut tasks = JoinSet::new();
    let (dead, _asks) = server(&mut tasks, usize::MAX).await;
    let (live, _asks) = server(&mut tasks, 0).await;
    let quic = loopback().ask_stun(dead).ask_stun("no name").ask_stun(live);
    let a = node_of(1, quic).await;
    assert_eq!(a.addresses[0], seen());
}

#[tokio::test(start_paused = true)]
async fn servers_that_do_not_answer_hold_up_nobody_for_long() {
    let mut tasks = JoinSet::new();
    let (dead, mut asks) = server(&mut tasks, usize::MAX).await;
    let begun = tokio::time::Instant::now();
    let a = node_of(1, loopback().ask_stun(dead)).await;
    assert_eq!(a.addresses.len(), 1);
    assert!(a.addresses[0].ip().is_loopback());
    // By the clock of the runtime, which does not run by itself here.
    assert!(begun.elapsed().as_millis() <= 2_001);
    // However often that happens, it goes on asking: what was given up takes no room.
    for _ in 0..70 {
        a.endpoint.addresses().await;
    }
    for _ in 0..200 {
        asks.recv().await.expect("it was asked");
    }
}

#[tokio::test]
async fn a_family_from_which_nothing_leads_on_does_not_hold_up_the_other() {
    let silent = match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await {
        Ok(socket) => socket,
        Err(error) => return eprintln!("skipped: there is no IPv6 here: {error}"),
    };
    let silent = silent.local_addr().expect("bound");
    let mut tasks = JoinSet::new();
    let (live, _asks) = server(&mut tasks, 0).await;
    let quic = Quic::new().ask_stun(live).ask_stun(silent.to_string());
    let begun = Instant::now();
    let a = node_of(1, quic).await;
    assert_eq!(a.addresses[0], seen());
    // With patience for both it takes two seconds.
    assert!(begun.elapsed() < Duration::from_millis(1_500));
}

#[tokio::test]
async fn a_node_at_all_addresses_asks_servers_over_ipv4() {
    let mut tasks = JoinSet::new();
    let (address, mut asks) = server(&mut tasks, 0).await;
    let a = node_of(1, Quic::new().ask_stun(address)).await;
    assert_eq!(a.addresses[0], seen());
    let from = asks.recv().await.expect("it was asked");
    for address in &a.addresses[1..] {
        assert_eq!(address.port(), from.port());
    }
}

#[tokio::test]
async fn answers_that_are_missing_are_no_move_until_several_are() {
    let mut tasks = JoinSet::new();
    let (address, _asks) = server_that(&mut tasks, |heard| heard == 1).await;
    let a = node_of(1, loopback().ask_stun(address)).await;
    assert_eq!(a.addresses[0], seen());
    tokio::time::pause();
    for _ in 0..2 {
        assert_eq!(a.endpoint.addresses().await, a.addresses);
    }
    assert_eq!(a.endpoint.addresses().await, a.addresses[1..]);
}

#[tokio::test]
async fn where_a_socket_was_seen_is_forgotten_when_the_network_changes() {
    let mut tasks = JoinSet::new();
    let (address, _asks) = server_that(&mut tasks, |heard| heard == 1).await;
    let a = node_of(1, loopback().ask_stun(address)).await;
    assert_eq!(a.addresses[0], seen());
    a.endpoint.network_changed().await.expect("a socket");
    tokio::time::pause();
    assert_ne!(a.endpoint.addresses().await[0], seen());
}

#[tokio::test]
async fn a_server_that_answered_is_asked_alone_while_it_does() {
    let mut tasks = JoinSet::new();
    let (address, _asks) = server(&mut tasks, 0).await;
    // By this one the socket may be seen elsewhere.
    let (other, mut asks) = server(&mut tasks, 1).await;
    let a = node_of(1, loopback().ask_stun(other).ask_stun(address)).await;
    for _ in 0..10 {
        assert_eq!(a.endpoint.addresses().await, a.addresses);
    }
    asks.recv().await.expect("it was asked once");
    assert!(asks.try_recv().is_err(), "and once more");
}
