//! What `outlive listen` tells on stderr of what happened to a peer and its messages.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStderr, Stdio};
use std::time::Duration;

use outlive::{ChannelId, Identity, Node, Sending};
use outlive_storage::SledStore;

use crate::process::{Running, feed, id, outlive, relay};

const SEED: [u8; 32] = [7; 32];

fn listening(
    url: &str,
    data: &Path,
    flags: &[&str],
) -> (Running, impl Iterator<Item = String> + use<>) {
    let mut command = outlive();
    command
        .args(["--json", "listen", "--relay", url, "--data"])
        .arg(data);
    command.args(flags).stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    let said: ChildStderr = running.child.stderr.take().unwrap();
    (running, BufReader::new(said).lines().map_while(Result::ok))
}

fn send(url: &str, data: &Path, to: &str, text: &str) {
    let mut sending = outlive();
    sending.args(["send", "--relay", url, "--timeout", "60", "--to", to]);
    let sent = feed(sending.arg("--data").arg(data), text.as_bytes());
    assert!(sent.status.success(), "{sent:?}");
}

/// Queues a message whose time is over.
fn queue_in_vain(data: &Path, to: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let node = Node::builder().identity(Identity::from_seed(SEED));
        let store = SledStore::open(data.join("store")).unwrap();
        let node = node.store(store).start().await.unwrap();
        let session = node.session(to.parse().unwrap()).await.unwrap();
        let sending = Sending {
            ttl: Some(Duration::from_millis(1)),
            ..Sending::default()
        };
        let queuing = session.start_send(ChannelId::MESSAGES, "in vain", sending);
        queuing.await.unwrap().durable().await.unwrap();
        drop(session);
        node.shutdown().await.unwrap();
    });
}

#[test]
fn messages_that_never_come_and_a_peer_that_lost_its_state_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    fs::create_dir(&alice).unwrap();
    let seed: String = SEED.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(alice.join("identity"), seed).unwrap();
    let (hers, to) = (id(&alice), id(&bob));
    let (mut running, mut said) = listening(&url, &bob, &[]);
    queue_in_vain(&alice, &to);
    send(&url, &alice, &to, "after it\n");
    let heard = running.lines.next().unwrap().unwrap();
    assert!(heard.contains("after it"), "{heard}");
    let gap = said.find(|line| line.contains("never come")).unwrap();
    assert!(gap.contains(&hers) && gap.contains("seq"), "{gap}");
    fs::remove_dir_all(alice.join("store")).unwrap();
    send(&url, &alice, &to, "anew\n");
    let heard = running.lines.next().unwrap().unwrap();
    assert!(heard.contains("anew"), "{heard}");
    let lost = said.find(|line| line.contains("lost its")).unwrap();
    assert!(lost.contains(&hers), "{lost}");
    // Each once.
    running.kill();
    let more: Vec<_> = said.collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn a_peer_that_does_not_accept_us_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let (_relay, address) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let url = format!("ws://{address}");
    let (hers, his) = (id(&alice), id(&bob));
    let mut blocking = outlive();
    blocking.args(["block", &his, "--data"]).arg(&alice);
    assert!(blocking.output().unwrap().status.success());
    let (_alice, _) = listening(&url, &alice, &[]);
    // Who has nothing to say is told nothing.
    let mut sending = outlive();
    sending.args(["send", "--wait", "queued", "--to", &hers, "--data"]);
    assert!(feed(sending.arg(&bob), b"hello\n").status.success());
    let (_bob, mut said) = listening(&url, &bob, &["--from", &hers]);
    let closed = said.find(|line| line.contains("does not accept")).unwrap();
    assert!(closed.contains(&hers), "{closed}");
}
