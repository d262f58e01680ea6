//! What who runs a relay is told.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

#[cfg(unix)]
use crate::process::outlive_as_nobody;
use crate::process::{Running, outlive, relay_with};

/// What `outlive relay` says on stderr when it can't start.
pub(crate) fn complaint(listen: &str, data: &Path, flags: &[&Path]) -> String {
    complaint_of(outlive(), listen, data, flags)
}

fn complaint_of(mut command: Command, listen: &str, data: &Path, flags: &[&Path]) -> String {
    command.args(["relay", "--listen", listen, "--data"]);
    let output = command.arg(data).args(flags).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_port_in_use_and_an_address_of_another_machine_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = complaint(&address, dir.path(), &[]);
    assert!(said.contains("another program listens there"), "{said}");
    assert!(said.contains(&address), "{said}");
    // An address for documentation, which no machine has.
    let said = complaint("192.0.2.1:4400", dir.path(), &[]);
    assert!(said.contains("no interface of this machine"), "{said}");
}

#[test]
fn numbers_are_told_where_it_says_and_an_address_in_use_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = outlive();
    command.args(["relay", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(dir.path().join("one"));
    let mut relay = Running::start(command.args(["--metrics", "127.0.0.1:0"]));
    let line = relay.lines.next().expect("it listens").unwrap();
    let listening: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = listening["metrics"].as_str().expect("an address");
    let mut socket = TcpStream::connect(address).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains("\noutlive_relay_store_writable 1\n"),
        "{answer}"
    );
    let flags = [Path::new("--metrics"), Path::new(address)];
    let said = complaint("127.0.0.1:0", &dir.path().join("two"), &flags);
    assert!(said.contains("another program listens there"), "{said}");
    assert!(said.contains(address), "{said}");
}

#[test]
fn an_address_without_a_port_is_wrong_usage_and_says_how_to_write_it() {
    let dir = tempfile::tempdir().unwrap();
    for listen in ["4400", "localhost:4400", "127.0.0.1", ":4400"] {
        let mut command = outlive();
        command.args(["relay", "--listen", listen, "--data"]);
        let output = command.arg(dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("127.0.0.1:4400"), "{said}");
    }
}

#[test]
fn a_directory_that_can_not_be_written_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    for data in [file.clone(), file.join("below")] {
        let said = complaint("127.0.0.1:0", &data, &[]);
        assert!(said.contains(&*data.to_string_lossy()), "{said}");
        assert!(said.contains("with --data"), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_directory_of_another_user_is_told_with_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write everywhere.
    let command = if fs::write(locked.join("try"), "").is_err() {
        outlive()
    } else if let Some(command) = outlive_as_nobody(dir.path()) {
        command
    } else {
        println!("SKIPPED: this user may write everywhere, and there is no setpriv to be another");
        return;
    };
    let said = complaint_of(command, "127.0.0.1:0", &locked, &[]);
    assert!(
        said.contains("run this as the user it belongs to"),
        "{said}"
    );
}

#[test]
fn a_relay_that_is_not_reached_is_told_also_while_another_is() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay_with(&dir.path().join("relay"), "127.0.0.1:0", &[]);
    // Nobody listens there.
    let (reached, missed) = (format!("ws://{address}"), "ws://127.0.0.1:9");
    let bob = outlive()
        .args(["contact", "--relay", &reached, "--relay", missed, "--data"])
        .arg(dir.path().join("bob"))
        .output()
        .unwrap();
    let bob = String::from_utf8(bob.stdout).unwrap();
    let mut sending = outlive();
    sending.args(["send", "--timeout", "20", "--to", bob.trim(), "--data"]);
    sending
        .arg(dir.path().join("alice"))
        .stderr(Stdio::piped())
        .stdin(Stdio::piped());
    let mut running = Running::start(&mut sending);
    let stdin = running.child.stdin.take().unwrap();
    let stderr = BufReader::new(running.child.stderr.take().unwrap());
    let told = format!("no connection to {missed} yet");
    assert!(
        stderr
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains(&told)),
        "it is not told"
    );
    drop(stdin);
}

#[test]
fn a_relay_drains_although_nobody_reads_what_it_says() {
    for log in ["warn", "trace"] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = outlive();
        command.args(["relay", "--listen", "127.0.0.1:0", "--data"]);
        command.env("OUTLIVE_LOG", log).stderr(Stdio::piped());
        let mut running = Running::start(command.arg(dir.path()));
        drop(running.child.stderr.take());
        running.lines.next().expect("it listens").unwrap();
        running.terminate();
        assert_eq!(running.child.wait().unwrap().code(), Some(0), "{log}");
    }
}
