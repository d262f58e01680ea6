//! Files that move between links with their session.

use std::path::Path;

use outlive::{FileError, FileEvent, FileInbox, SessionState, StopReason};

use crate::world::{World, direct_links, soon};

/// Accepts what is offered, and takes it until so much is here, or all of it.
async fn take(files: &mut FileInbox, into: &Path, bytes: u64) {
    loop {
        match soon("a part", files.next()).await.expect("it comes") {
            FileEvent::Offered(mut offer) => offer.accept(into).await.expect("room"),
            FileEvent::Progress(_, progress) if progress.done >= bytes => return,
            FileEvent::Progress(..) => {}
            other => panic!("{other:?} came too early"),
        }
    }
}

#[tokio::test]
async fn a_file_goes_on_from_a_direct_link_to_the_relay_and_beside_a_new_one_and_comes_once() {
    const MIB: u64 = 1 << 20;
    let mut world = World::new().await;
    world.until_direct().await;
    let disk = tempfile::tempdir().unwrap();
    let (path, into) = (disk.path().join("a"), disk.path().join("into"));
    let whole: Vec<u8> = (0..48 * MIB).map(|n| (n * n / 7 % 251) as u8).collect();
    std::fs::write(&path, &whole).unwrap();
    std::fs::create_dir(&into).unwrap();
    let sending = world.peers[0].session.send_file(&path).await.unwrap();
    let mut files = world.peers[1].session.files().await.unwrap();
    let over = |world: &World, transport| {
        let traffic = world.peers[1].session.traffic();
        traffic.get(transport).map_or(0, |of| of.bytes_received)
    };

    // It goes no further than there is room: so it is known what carried how much.
    take(&mut files, &into, 8 * MIB).await;
    let direct = over(&world, "quic");
    assert!(direct > 8 * MIB, "{direct} bytes came over the direct link");
    world.close_roads();
    take(&mut files, &into, 28 * MIB).await;
    let relayed = over(&world, "relay");
    assert!(relayed > 4 * MIB, "{relayed} bytes came over the relay");
    world.talk().await;
    assert!(sending.progress().done < whole.len() as u64);
    world.open_roads();
    // On a busy host the relay may have taken in more, and carries then.
    for who in 0..2 {
        let is_up = |state: &SessionState| direct_links(state) == 1;
        world.until(who, "another direct link", is_up).await;
    }
    world.talk().await;
    take(&mut files, &into, 48 * MIB).await;

    let FileEvent::Received(file) = soon("the file", files.next()).await.unwrap() else {
        panic!("no file");
    };
    assert!(std::fs::read(file.path()).unwrap() == whole);
    file.commit().await.unwrap();
    soon("the word of it", sending.done()).await.unwrap();
    let names: Vec<_> = std::fs::read_dir(&into).unwrap().collect();
    assert_eq!(names.len(), 1);
    drop((files, sending));
    world.end().await;
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
    let names = entries.map(|entry| name(entry).into_string().expect("UTF-8"));
    names.collect()
}

#[tokio::test]
async fn a_file_called_off_half_way_by_either_side_leaves_nothing_behind_and_both_hear_it() {
    let world = World::new().await;
    world.until_direct().await;
    let disk = tempfile::tempdir().unwrap();
    let (path, into) = (disk.path().join("a"), disk.path().join("into"));
    // On this link it goes no further than there is room at the receiver.
    std::fs::write(&path, vec![7; 24 << 20]).unwrap();
    std::fs::create_dir(&into).unwrap();
    let mut files = world.peers[1].session.files().await.unwrap();
    for by_sender in [true, false] {
        let sending = world.peers[0].session.send_file(&path).await.unwrap();
        take(&mut files, &into, 2 << 20).await;
        assert_eq!(names(&into), [format!("a.{}.part", sending.transfer())]);
        if by_sender {
            // Twice is as good as once.
            sending.cancel().await.unwrap();
            sending.cancel().await.unwrap();
            let failed = loop {
                match soon("the word of it", files.next()).await.unwrap() {
                    FileEvent::Progress(..) => {}
                    other => break other,
                }
            };
            assert!(matches!(
                failed,
                FileEvent::Failed(_, StopReason::Cancelled)
            ));
        } else {
            assert!(files.cancel(sending.transfer()).await.unwrap());
        }
        let done = soon("the word of it", sending.done()).await;
        assert!(matches!(
            done,
            Err(FileError::Stopped(StopReason::Cancelled))
        ));
        assert!(names(&into).is_empty());
    }
    let small = disk.path().join("b");
    std::fs::write(&small, b"b").unwrap();
    let sending = world.peers[0].session.send_file(&small).await.unwrap();
    take(&mut files, &into, 1).await;
    soon("the word of it", sending.done()).await.unwrap();
    assert_eq!(names(&into), ["b"]);
    drop((files, sending));
    world.end().await;
}
