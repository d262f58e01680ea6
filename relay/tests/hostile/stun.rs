//! STUN: everybody is answered, nobody too often.

use std::net::SocketAddr;
use std::sync::Arc;

use outlive_relay::{Rate, Relay, RelayConfig};
use outlive_storage::MemoryStore;
use quinn_udp::{Transmit, UdpSocketState};
use tokio::net::UdpSocket;

use crate::client::soon;

/// A binding request with this transaction.
fn request(transaction: u8) -> Vec<u8> {
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend([transaction; 12]);
    request
}

/// A relay that answers five requests of an address at once, and then one a second.
async fn strict() -> Relay {
    let mut config = RelayConfig::default();
    config.address_stun = Rate::new(1).map(|rate| rate.with_burst(5));
    config.limit_loopback = true;
    Relay::builder()
        .store(Arc::new(MemoryStore::new()))
        .config(config)
        .stun(([127, 0, 0, 1], 0).into())
        .bind(([127, 0, 0, 1], 0).into())
        .await
        .unwrap()
}

async fn socket(ip: [u8; 4], server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from((ip, 0))).await.unwrap();
    socket.connect(server).await.unwrap();
    socket
}

/// The transaction of the next answer.
async fn answered(socket: &UdpSocket) -> u8 {
    let mut answer = [0; 128];
    let length = soon("an answer", socket.recv(&mut answer)).await.unwrap();
    assert_eq!(answer[..2], [1, 1], "a success");
    // XOR-MAPPED-ADDRESS of IPv4 and nothing else.
    assert_eq!(length, 20 + 12);
    assert_eq!(answer[20..24], [0, 0x20, 0, 8]);
    let port = u16::from_be_bytes([answer[26], answer[27]]) ^ 0x2112;
    assert_eq!(port, socket.local_addr().unwrap().port());
    answer[8]
}

#[tokio::test]
async fn who_asks_too_often_is_not_answered_and_others_are() {
    let relay = strict().await;
    let server = relay.stun_addr().unwrap();
    let (greedy, other) = (
        socket([127, 0, 0, 1], server).await,
        socket([127, 0, 0, 2], server).await,
    );
    for transaction in 0..50 {
        greedy.send(&request(transaction)).await.unwrap();
    }
    for transaction in 0..5 {
        assert_eq!(answered(&greedy).await, transaction);
    }
    // What is no request is not answered either, and harms nobody.
    for garbage in [&b""[..], b"\0", &[0xff; 1_400], &request(9)[..19]] {
        other.send(garbage).await.unwrap();
    }
    other.send(&request(77)).await.unwrap();
    assert_eq!(answered(&other).await, 77);
    // All that came before has been looked at. A second may have passed, and then one more was due.
    let mut late = 0;
    while greedy.try_recv(&mut [0; 128]).is_ok() {
        late += 1;
    }
    assert!(late <= 2, "{late} answers too many");
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_answer_comes_from_the_address_that_was_asked() {
    for all in ["0.0.0.0:0", "[::]:0"] {
        let relay = Relay::builder()
            .store(Arc::new(MemoryStore::new()))
            .stun(all.parse().unwrap())
            .bind(([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        let port = relay.stun_addr().unwrap().port();
        // Left to itself the system answers from the first address of the machine, which is another.
        let client = socket([127, 0, 0, 1], ([127, 0, 0, 2], port).into()).await;
        client.send(&request(1)).await.unwrap();
        assert_eq!(answered(&client).await, 1, "at {all}");
        relay.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn requests_that_come_together_are_answered_and_counted_one_by_one() {
    let relay = strict().await;
    let server = relay.stun_addr().unwrap();
    let greedy = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    greedy.writable().await.unwrap();
    let state = UdpSocketState::new((&greedy).into()).unwrap();
    // Where the system takes them in one piece, loopback hands them over in one piece.
    let requests: Vec<_> = (0..50).map(request).collect();
    let most = state.max_gso_segments();
    for together in requests.chunks(most) {
        let transmit = Transmit {
            destination: server,
            ecn: None,
            contents: &together.concat(),
            segment_size: Some(request(0).len()),
            src_ip: None,
        };
        state.try_send((&greedy).into(), &transmit).unwrap();
    }
    for transaction in 0..5 {
        assert_eq!(answered(&greedy).await, transaction);
    }
    let other = socket([127, 0, 0, 2], server).await;
    other.send(&request(77)).await.unwrap();
    assert_eq!(answered(&other).await, 77);
    let mut late = 0;
    while greedy.try_recv(&mut [0; 128]).is_ok() {
        late += 1;
    }
    assert!(late <= 2, "{late} answers too many");
    relay.shutdown().await.unwrap();
}
