//! What is for nobody else on the machine: secrets on their way in, in files that a kill left behind,
//! and what a process tells of its sessions.

use std::fs;

use crate::process::{id, outlive};

#[test]
fn what_a_kill_left_of_an_identity_goes_when_the_next_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("alice");
    id(&data);
    let left = data.join("identity.4711.new");
    fs::copy(data.join("identity"), &left).unwrap();
    fs::write(data.join("identity.note"), "somebody else's").unwrap();
    let secret = dir.path().join("passphrase");
    fs::write(&secret, "correct horse battery staple\n").unwrap();
    let mut sealing = outlive();
    sealing.arg("passphrase").arg("--data").arg(&data);
    sealing.arg("--new-passphrase-file").arg(&secret);
    assert!(sealing.output().unwrap().status.success());
    assert!(!left.exists(), "the seed is there in the clear");
    assert!(data.join("identity.note").exists());
}
