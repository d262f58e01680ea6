//! TLS from one end to the other, and the certificate of a relay: read, used, renewed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::process::{Running, feed, id, outlive, relay_with};
use crate::relay::complaint;

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
        let sent = send(dir.path(), &url, ca, &to, "10");
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

/// A relay that logs what it does, its log, and its address.
fn logging(data: &Path, flags: &[&Path]) -> (Running, BufReader<ChildStderr>, String) {
    let mut command = outlive();
    command.args(["relay", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(data).args(flags);
    command.env("OUTLIVE_LOG", "info").stderr(Stdio::piped());
    let mut relay = Running::start(&mut command);
    let log = BufReader::new(relay.child.stderr.take().unwrap());
    let line = relay.lines.next().expect("it listens").unwrap();
    let listening: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = listening["addr"].as_str().unwrap().to_owned();
    (relay, log, address)
}

/// The next line of a log with this in it.
fn logged(log: &mut BufReader<ChildStderr>, what: &str) -> String {
    let mut lines = log.lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains(what));
    line.unwrap_or_else(|| panic!("the log ended without {what:?}"))
}

#[test]
fn a_renewed_certificate_is_shown_to_whoever_comes_and_who_is_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(&dir.path().join("old"));
    let renewed = Files::new(&dir.path().join("new"));
    let flags = Files::flags(&files.cert, &files.key);
    let (relay, mut log, address) = logging(&dir.path().join("relay"), &flags);
    let url = format!("wss://{address}");
    let to = id(&dir.path().join("bob"));
    let mut listening = outlive();
    listening.args(["listen", "--relay", &url, "--timeout", "60", "--count", "4"]);
    listening.arg("--relay-ca").arg(&files.ca);
    let mut bob = Running::start(listening.arg("--data").arg(dir.path().join("bob")));
    let mut heard = || bob.lines.next().expect("a line").unwrap();
    assert!(
        send(dir.path(), &url, &files.ca, &to, "60")
            .status
            .success()
    );
    assert_eq!([heard(), heard()], ["through TLS", "both ways"]);
    fs::copy(&renewed.cert, &files.cert).unwrap();
    fs::copy(&renewed.key, &files.key).unwrap();
    relay.reload();
    let line = logged(&mut log, "the certificate was read again");
    assert!(line.contains("INFO"), "{line}");
    let refused = send(dir.path(), &url, &files.ca, &to, "10");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("is not trusted"), "{said}");
    assert!(
        send(dir.path(), &url, &renewed.ca, &to, "60")
            .status
            .success()
    );
    // He trusts the old authority alone: this comes over the connection that he had.
    assert_eq!([heard(), heard()], ["through TLS", "both ways"]);
}

#[test]
fn a_certificate_that_can_not_be_renewed_stays_and_the_log_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(&dir.path().join("old"));
    let others = Files::new(&dir.path().join("new"));
    let flags = Files::flags(&files.cert, &files.key);
    let (relay, mut log, address) = logging(&dir.path().join("relay"), &flags);
    fs::copy(&others.cert, &files.cert).unwrap();
    relay.reload();
    let line = logged(&mut log, "the certificate can't be renewed");
    for said in [
        "WARN",
        "it is not the one of the certificate",
        &*files.cert.to_string_lossy(),
        &*files.key.to_string_lossy(),
    ] {
        assert!(line.contains(said), "{line}");
    }
    fs::remove_file(&files.key).unwrap();
    relay.reload();
    let line = logged(&mut log, "the certificate can't be renewed");
    let missing = format!("can't read {}", files.key.display());
    assert!(line.contains("WARN") && line.contains(&missing), "{line}");
    let url = format!("wss://{address}");
    let to = id(&dir.path().join("bob"));
    assert!(
        send(dir.path(), &url, &files.ca, &to, "60")
            .status
            .success()
    );
}

#[test]
fn a_relay_without_a_certificate_goes_on_when_it_is_to_read_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut relay, mut log, _) = logging(dir.path(), &[]);
    relay.reload();
    let line = logged(&mut log, "there is no certificate to read again");
    assert!(line.contains("INFO"), "{line}");
    relay.terminate();
    assert_eq!(relay.child.wait().unwrap().code(), Some(0));
}
