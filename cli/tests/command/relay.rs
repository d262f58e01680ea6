//! What who runs a relay is told, and TLS from one end to the other.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

#[cfg(unix)]
use crate::process::outlive_as_nobody;
use crate::process::{Running, feed, id, outlive, relay_with};

/// What `outlive relay` says on stderr when it can't start.
fn complaint(listen: &str, data: &Path, flags: &[&Path]) -> String {
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

/// A relay's certificate, its key, and the authority that issued it, as files.
struct Files {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl Files {
    fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let cert = cert.signed_by(&key, &ca).unwrap();
        let write = |name: &str, pem: String| {
            let path = dir.join(name);
            fs::write(&path, pem).unwrap();
            path
        };
        Self {
            cert: write("cert.pem", cert.pem()),
            key: write("key.pem", key.serialize_pem()),
            ca: write("ca.pem", ca.pem()),
        }
    }

    fn flags<'a>(cert: &'a Path, key: &'a Path) -> [&'a Path; 4] {
        [Path::new("--tls-cert"), cert, Path::new("--tls-key"), key]
    }

    fn relay(&self, data: &Path) -> (Running, String) {
        relay_with(data, "127.0.0.1:0", &Self::flags(&self.cert, &self.key))
    }
}

#[test]
fn certificates_that_can_not_be_used_are_told_with_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(&dir.path().join("one"));
    let others = Files::new(&dir.path().join("two"));
    let missing = dir.path().join("missing.pem");
    let encrypted = dir.path().join("encrypted.pem");
    let pem = fs::read_to_string(&files.key).unwrap();
    let pem = pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    fs::write(&encrypted, pem).unwrap();
    for (cert, key, said) in [
        (&missing, &files.key, "can't read"),
        (&files.cert, &missing, "can't read"),
        (&files.key, &files.cert, "the certificate is not usable"),
        (&files.cert, &files.cert, "the private key is not usable"),
        (&files.cert, &encrypted, "the key in"),
        (
            &files.cert,
            &others.key,
            "it is not the one of the certificate",
        ),
    ] {
        let complaint = complaint("127.0.0.1:0", dir.path(), &Files::flags(cert, key));
        assert!(complaint.contains(said), "{complaint}");
        let named = [cert, key]
            .iter()
            .any(|path| complaint.contains(&*path.to_string_lossy()));
        assert!(named, "{complaint}");
    }
    let mut half = outlive();
    half.args(["relay", "--listen", "127.0.0.1:0", "--data"]);
    half.arg(dir.path()).arg("--tls-cert").arg(&files.cert);
    assert_eq!(half.output().unwrap().status.code(), Some(2));
}

fn send(dir: &Path, url: &str, ca: &Path, to: &str, timeout: &str) -> std::process::Output {
    let mut sending = outlive();
    sending.args(["send", "--relay", url, "--timeout", timeout]);
    sending.args(["--wait", "custody", "--to", to, "--relay-ca"]);
    sending.arg(ca).arg("--data").arg(dir.join("alice"));
    feed(&mut sending, b"through TLS\nboth ways\n")
}

#[test]
fn messages_travel_through_a_relay_with_a_certificate_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(dir.path());
    let (_relay, address) = files.relay(&dir.path().join("relay"));
    let url = format!("wss://{address}");
    let to = id(&dir.path().join("bob"));
    let sent = send(dir.path(), &url, &files.ca, &to, "60");
    let said = String::from_utf8_lossy(&sent.stderr);
    assert!(sent.status.success(), "{said}");
    let mut listening = outlive();
    listening.args(["listen", "--relay", &url, "--timeout", "60", "--count", "2"]);
    listening.arg("--relay-ca").arg(&files.ca);
    let heard = listening.arg("--data").arg(dir.path().join("bob")).output();
    assert_eq!(heard.unwrap().stdout, b"through TLS\nboth ways\n");
}

#[test]
fn a_relay_that_is_not_trusted_or_not_spoken_to_rightly_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(&dir.path().join("one"));
    let others = Files::new(&dir.path().join("two"));
    let (_relay, address) = files.relay(&dir.path().join("relay"));
    let to = id(&dir.path().join("bob"));
    for (scheme, ca, hint) in [
        ("wss", &others.ca, "is not trusted"),
        ("wss", &others.ca, "--relay-ca"),
        ("ws", &files.ca, "use wss://"),
    ] {
        let url = format!("{scheme}://{address}");
        let sent = send(dir.path(), &url, ca, &to, "3");
        assert_eq!(sent.status.code(), Some(1));
        let said = String::from_utf8_lossy(&sent.stderr);
        assert!(said.contains(hint), "{said}");
    }
    // What is no certificate ends it at once.
    let url = format!("wss://{address}");
    for (ca, hint) in [
        (&files.key, "there is none"),
        (&dir.path().join("no"), "can't read"),
    ] {
        let sent = send(dir.path(), &url, ca, &to, "60");
        assert_eq!(sent.status.code(), Some(1));
        let said = String::from_utf8_lossy(&sent.stderr);
        assert!(
            said.contains(hint) && said.contains(&*ca.to_string_lossy()),
            "{said}"
        );
        assert!(!said.contains(&url), "{said}");
    }
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
