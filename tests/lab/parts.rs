//! The lab itself: each part of it does what it says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::gate::{Nat, hide, no_wall, wall};
use crate::host::Host;
use crate::lab::Lab;
use crate::weather::Weather;
use crate::wire::Wire;

/// Longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing comes when nothing comes.
const NOTHING: Duration = Duration::from_secs(1);

async fn socket(host: &Host, address: &'static str) -> Arc<UdpSocket> {
    let socket = host.run(UdpSocket::bind(address)).await;
    Arc::new(socket.expect("an address of the host"))
}

/// Sends back whatever comes to this address.
async fn echo(host: &Host, address: &'static str) {
    let socket = socket(host, address).await;
    host.start(async move {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            // What can't be sent is as good as lost.
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    });
}

/// Sends `count` numbers at once, and returns which of them came back after how long.
async fn ping(host: &Host, socket: &Arc<UdpSocket>, to: &str, count: u32) -> Vec<(u32, Duration)> {
    let to: SocketAddr = to.parse().expect("an address");
    let socket = socket.clone();
    host.run(async move {
        let began = Instant::now();
        for n in 0..count {
            // What can't be sent is as good as lost.
            let _ = socket.send_to(&n.to_be_bytes(), to).await;
        }
        let mut back = Vec::new();
        let mut number = [0; 4];
        while let Ok(received) = tokio::time::timeout(NOTHING, socket.recv_from(&mut number)).await
        {
            if received.is_ok() {
                back.push((u32::from_be_bytes(number), began.elapsed()));
            }
        }
        back
    })
    .await
}

fn numbers(back: &[(u32, Duration)]) -> Vec<u32> {
    back.iter().map(|(number, _)| *number).collect()
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test]
async fn a_wire_takes_as_long_as_it_is_told() {
    let Some(lab) = Lab::open(1) else { return };
    let (a, b) = (Host::new("a"), Host::new("b"));
    let wire = lab.wire((&a, "10.0.0.1/24"), (&b, "10.0.0.2/24"));
    echo(&b, "10.0.0.2:7").await;
    let from = socket(&a, "10.0.0.1:0").await;
    assert_eq!(numbers(&ping(&a, &from, "10.0.0.2:7", 1).await), [0]);
    for delay in [20, 50] {
        wire.set(Weather::delayed(ms(delay)));
        let back = ping(&a, &from, "10.0.0.2:7", 1).await;
        assert_eq!(numbers(&back), [0]);
        assert!(back[0].1 >= ms(2 * delay), "{back:?}");
    }
    wire.set(Weather {
        jitter: ms(20),
        ..Weather::delayed(ms(20))
    });
    let back = ping(&a, &from, "10.0.0.2:7", 50).await;
    assert_eq!(numbers(&back), (0..50).collect::<Vec<_>>(), "order is kept");
    assert!(back[0].1 >= ms(40) && back[49].1 > ms(60), "{back:?}");
}

#[tokio::test]
async fn a_wire_loses_and_doubles_as_many_as_it_says() {
    let Some(lab) = Lab::open(2) else { return };
    let (a, b) = (Host::new("a"), Host::new("b"));
    let wire = lab.wire((&a, "10.0.0.1/24"), (&b, "10.0.0.2/24"));
    echo(&b, "10.0.0.2:7").await;
    let from = socket(&a, "10.0.0.1:0").await;
    wire.set(Weather {
        loss: 0.2,
        duplicate: 0.1,
        ..Weather::default()
    });
    let mut came = 0;
    for _ in 0..10 {
        came += ping(&a, &from, "10.0.0.2:7", 50).await.len();
    }
    let counts = [&wire.counts.sent, &wire.counts.lost, &wire.counts.doubled];
    let [sent, lost, doubled] = counts.map(|count| count.load(Ordering::Relaxed));
    assert!(
        (lost as f64 / sent as f64 - 0.2).abs() < 0.06,
        "{lost} of {sent}"
    );
    assert!(
        (doubled as f64 / (sent - lost) as f64 - 0.1).abs() < 0.05,
        "{doubled} of {sent}"
    );
    // Of all that arrived, what is not an answer was answered: 500 went out, the rest came back.
    assert_eq!(sent - lost + doubled, came as u64 + (sent - 500));
}

#[tokio::test]
async fn late_frames_are_overtaken() {
    let Some(lab) = Lab::open(3) else { return };
    let (a, b) = (Host::new("a"), Host::new("b"));
    let wire = lab.wire((&a, "10.0.0.1/24"), (&b, "10.0.0.2/24"));
    echo(&b, "10.0.0.2:7").await;
    let from = socket(&a, "10.0.0.1:0").await;
    wire.set(Weather {
        reorder: 0.1,
        late: ms(25),
        ..Weather::default()
    });
    let mut back = numbers(&ping(&a, &from, "10.0.0.2:7", 100).await);
    assert!(!back.is_sorted(), "{back:?}");
    back.sort_unstable();
    assert_eq!(back, (0..100).collect::<Vec<_>>(), "none is lost");
}

#[tokio::test]
async fn a_wire_that_is_cut_carries_nothing_and_one_that_is_mended_does() {
    let Some(lab) = Lab::open(4) else { return };
    let (a, b) = (Host::new("a"), Host::new("b"));
    let wire = lab.wire((&a, "10.0.0.1/24"), (&b, "10.0.0.2/24"));
    echo(&b, "10.0.0.2:7").await;
    let from = socket(&a, "10.0.0.1:0").await;
    wire.cut();
    assert!(ping(&a, &from, "10.0.0.2:7", 5).await.is_empty());
    wire.mend();
    assert_eq!(ping(&a, &from, "10.0.0.2:7", 5).await.len(), 5);
}

#[tokio::test]
async fn a_wire_with_a_rate_carries_no_faster() {
    let Some(lab) = Lab::open(5) else { return };
    let (a, b) = (Host::new("a"), Host::new("b"));
    let wire = lab.wire((&a, "10.0.0.1/24"), (&b, "10.0.0.2/24"));
    wire.set(Weather {
        rate: Some(8_000_000),
        ..Weather::default()
    });
    let bytes = 500_000;
    let listener = b.run(TcpListener::bind("10.0.0.2:7")).await;
    let listener = listener.expect("an address of the host");
    let taken = b.start(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    });
    let began = Instant::now();
    a.run(async move {
        let mut stream = TcpStream::connect("10.0.0.2:7").await?;
        tokio::io::copy(&mut &vec![0; bytes][..], &mut stream).await
    })
    .await
    .expect("a connection");
    let taken = tokio::time::timeout(PATIENCE, taken).await;
    let taken = taken.expect("in time").expect("no panic").expect("all");
    assert_eq!(taken, bytes as u64);
    assert!(began.elapsed() >= ms(500), "{:?}", began.elapsed());
}

/// Three hosts around a router, one of them behind a gate.
struct Between {
    router: Host,
    gate: Host,
    a: Host,
    b: Host,
    c: Host,
    outside: Wire,
    _lab: Lab,
}

fn between(seed: u64) -> Option<Between> {
    let lab = Lab::open(seed)?;
    let [router, gate, a, b, c] = ["router", "gate", "a", "b", "c"].map(Host::new);
    lab.wire((&gate, "192.168.0.1/24"), (&a, "192.168.0.2/24"));
    let outside = lab.wire((&router, "10.0.1.1/24"), (&gate, "10.0.1.2/24"));
    lab.wire((&router, "10.0.2.1/24"), (&b, "10.0.2.2/24"));
    lab.wire((&router, "10.0.3.1/24"), (&c, "10.0.3.2/24"));
    router.route();
    for (host, way) in [
        (&a, "192.168.0.1"),
        (&gate, "10.0.1.1"),
        (&b, "10.0.2.1"),
        (&c, "10.0.3.1"),
    ] {
        host.ip(&format!("route add default via {way}"));
    }
    Some(Between {
        router,
        gate,
        a,
        b,
        c,
        outside,
        _lab: lab,
    })
}

/// Tells whoever asks at which address it is seen.
async fn mirror(host: &Host, address: &'static str) -> Arc<UdpSocket> {
    let socket = socket(host, address).await;
    let own = socket.clone();
    host.start(async move {
        while let Ok((_, from)) = own.recv_from(&mut [0; 2_048]).await {
            // What can't be sent is as good as lost.
            let _ = own.send_to(from.to_string().as_bytes(), from).await;
        }
    });
    socket
}

/// Where `to` sees the socket.
async fn seen(host: &Host, socket: &Arc<UdpSocket>, to: &'static str) -> SocketAddr {
    let socket = socket.clone();
    let asked = async move {
        socket.send_to(b"where am I?", to).await?;
        let mut answer = [0; 64];
        let (length, _) = socket.recv_from(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    let asked = host.run(tokio::time::timeout(PATIENCE, asked)).await;
    let answer = asked.expect("in time").expect("a socket");
    answer.parse().expect("an address")
}

#[tokio::test]
async fn a_router_joins_networks_and_a_wall_parts_them() {
    let Some(net) = between(6) else { return };
    net.gate.route();
    net.router.ip("route add 192.168.0.0/24 via 10.0.1.2");
    echo(&net.b, "10.0.2.2:7").await;
    echo(&net.c, "10.0.3.2:7").await;
    let from = socket(&net.a, "192.168.0.2:0").await;
    assert_eq!(ping(&net.a, &from, "10.0.2.2:7", 5).await.len(), 5);
    wall(&net.router, "192.168.0.0/24", "10.0.2.0/24");
    assert!(ping(&net.a, &from, "10.0.2.2:7", 5).await.is_empty());
    assert_eq!(ping(&net.a, &from, "10.0.3.2:7", 5).await.len(), 5);
    no_wall(&net.router);
    assert_eq!(ping(&net.a, &from, "10.0.2.2:7", 5).await.len(), 5);
}

#[tokio::test]
async fn a_gate_hides_who_is_behind_it_and_lets_in_nobody_else() {
    let Some(net) = between(7) else { return };
    hide(&net.gate, &net.outside, Nat::Plain);
    let b = mirror(&net.b, "10.0.2.2:7").await;
    let c = mirror(&net.c, "10.0.3.2:7").await;
    let from = socket(&net.a, "192.168.0.2:4000").await;
    let known: SocketAddr = "10.0.1.2:4000".parse().expect("an address");
    // `a` has spoken to nobody: `c` does not get in.
    let silent = |socket: Arc<UdpSocket>, host: &Host| {
        host.start(async move {
            let mut buffer = [0; 64];
            tokio::time::timeout(NOTHING, socket.recv_from(&mut buffer)).await
        })
    };
    let comes = silent(from.clone(), &net.a);
    c.send_to(b"hello", known).await.expect("a way");
    assert!(comes.await.expect("no panic").is_err());
    assert_eq!(seen(&net.a, &from, "10.0.2.2:7").await, known);
    // It has spoken to `b` alone.
    let comes = silent(from.clone(), &net.a);
    c.send_to(b"hello", known).await.expect("a way");
    assert!(comes.await.expect("no panic").is_err());
    let comes = silent(from.clone(), &net.a);
    b.send_to(b"hello", known).await.expect("a way");
    assert!(comes.await.expect("no panic").is_ok());
    // Everybody sees it at one port.
    assert_eq!(seen(&net.a, &from, "10.0.3.2:7").await, known);
}

#[tokio::test]
async fn a_symmetric_gate_shows_everybody_another_port() {
    let Some(net) = between(8) else { return };
    hide(&net.gate, &net.outside, Nat::Symmetric);
    mirror(&net.b, "10.0.2.2:7").await;
    mirror(&net.c, "10.0.3.2:7").await;
    let from = socket(&net.a, "192.168.0.2:4000").await;
    let at_b = seen(&net.a, &from, "10.0.2.2:7").await;
    let at_c = seen(&net.a, &from, "10.0.3.2:7").await;
    assert_eq!(at_b.ip(), at_c.ip());
    assert_ne!(at_b.port(), at_c.port());
}

#[test]
fn labs_side_by_side_and_after_a_panic_do_not_meet() {
    let inside = |panics: bool| {
        let Some(lab) = Lab::open(9) else { return };
        let (a, b) = (Host::new("a"), Host::new("b"));
        lab.wire((&a, "10.0.0.1/24"), (&b, "10.0.0.2/24"));
        assert!(!panics, "on purpose");
    };
    std::thread::scope(|scope| {
        let labs: Vec<_> = (0..4)
            .map(|n| scope.spawn(move || inside(n % 2 == 1)))
            .collect();
        let ended = labs.into_iter().map(|lab| lab.join().is_ok());
        let expected = [true, false, true, false];
        assert!(ended.eq(expected) || Lab::open(9).is_none());
    });
    inside(false);
}
