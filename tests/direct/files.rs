//! Files that move between links with their session.

use std::path::Path;

use outlive::{FileEvent, FileInbox};

use crate::world::{World, soon};

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
async fn a_file_goes_on_from_the_relay_to_a_direct_link_and_back_and_comes_once() {
    const MIB: u64 = 1 << 20;
    let mut world = World::new().await;
    world.allow_direct(false).await;
    world.until_relayed().await;
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

    take(&mut files, &into, 4 * MIB).await;
    assert!(over(&world, "relay") > 4 * MIB);
    world.allow_direct(true).await;
    world.until_direct().await;
    take(&mut files, &into, 16 * MIB).await;
    world.talk().await;
    world.close_roads();
    world.until_relayed().await;
    world.talk().await;
    let direct = over(&world, "quic");
    assert!(direct > MIB, "{direct} bytes came over the direct link");
    assert!(sending.progress().done < whole.len() as u64);
    take(&mut files, &into, 24 * MIB).await;
    world.open_roads();
    world.until_direct().await;
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
