//! Peers that use different relays.

use crate::process::{Running, done, feed, id, on, relay};

#[test]
fn a_peer_that_uses_another_relay_is_written_to_there_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let [hers, his, alice, bob] = ["hers", "his", "alice", "bob"].map(|name| dir.path().join(name));
    let (_one, at_one) = relay(&hers, "127.0.0.1:0");
    let (_two, at_two) = relay(&his, "127.0.0.1:0");
    let [one, two] = [at_one, at_two].map(|address| format!("ws://{address}"));
    let contact = done(&on(&bob, &["contact", "--relay", &two]).output().unwrap());
    let send = ["send", "--relay", &one, "--to", contact.trim()];
    let kept = ["--wait", "custody", "--timeout", "60"];
    done(&feed(on(&alice, &send).args(kept), b"hello\n"));
    let listen = ["listen", "--relay", &two, "--count", "1", "--timeout", "60"];
    let heard = on(&bob, &listen).output().unwrap();
    assert_eq!(done(&heard), "hello\n");

    // She has said where she reads, with what she wrote.
    let her = id(&alice);
    let answer = ["send", "--relay", &two, "--to", &her];
    let soon = ["--wait", "custody", "--timeout", "5"];
    let refused = feed(on(&bob, &answer).args(soon), b"not there\n");
    assert_eq!(refused.status.code(), Some(1), "not unless that is allowed");
    let anywhere = ["--foreign-relays", "any"];
    done(&feed(
        on(&bob, &answer).args(kept).args(anywhere),
        b"good day\n",
    ));
    let listen = ["listen", "--relay", &one, "--count", "2", "--timeout", "60"];
    let heard = on(&alice, &listen).output().unwrap();
    assert_eq!(done(&heard), "not there\ngood day\n");
}

#[test]
fn a_relay_of_a_peer_that_is_not_reached_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, address): (Running, String) = relay(&dir.path().join("relay"), "127.0.0.1:0");
    let (alice, bob) = (dir.path().join("alice"), dir.path().join("bob"));
    let nowhere = "ws://127.0.0.1:1";
    let contact = done(&on(&bob, &["contact", "--relay", nowhere]).output().unwrap());
    let own = format!("ws://{address}");
    let send = ["send", "--relay", &own, "--to", contact.trim()];
    let sent = feed(on(&alice, &send).args(["--timeout", "5"]), b"hello\n");
    let said = String::from_utf8_lossy(&sent.stderr);
    assert_eq!(sent.status.code(), Some(1), "{said}");
    assert!(said.contains(nowhere), "{said}");
    // Who knows better says so.
    let never = [
        "--foreign-relays",
        "never",
        "--wait",
        "custody",
        "--timeout",
        "60",
    ];
    done(&feed(on(&alice, &send).args(never), b"hello\n"));
    drop(relay);
}
