use outlive_core::store::Store;

use super::super::SledStore;
use super::*;

fn one() -> Batch {
    let mut batch = Batch::new();
    batch.put("key".into(), "value".into());
    batch
}

/// A writer whose header fails just when the compacted log is to take the place of the old one.
fn unsure(options: &SledOptions) -> Writer {
    let (mut writer, _) = Writer::open(options.clone()).unwrap();
    writer.write(&[one()]).unwrap();
    writer.compact_if_due();
    assert!(writer.is_compacting());
    writer.header.fail();
    while writer.is_compacting() {
        writer.go_on_compacting(1_024);
    }
    assert!(
        !writer.is_open(),
        "it takes writes to a log that may be gone"
    );
    writer
}

fn holds_one(shared: &Shared) -> bool {
    let read = shared.read(|files| files.get(&"key".into()));
    read.unwrap().is_some_and(|value| value == "value")
}

#[test]
fn either_log_is_whole_while_it_is_not_known_which_of_them_the_header_names() {
    for names_next in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = SledOptions::new(dir.path()).compact_above(0);
        let writer = unsure(&options);
        if names_next {
            writer.header.name_next();
        }
        drop(writer);
        let (_writer, shared) = Writer::open(options).unwrap();
        assert!(holds_one(&shared));
    }
}

#[test]
fn once_the_header_is_sure_again_the_copy_goes_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = SledOptions::new(dir.path()).compact_above(0);
    let mut writer = unsure(&options);
    writer.header.mend();
    writer.write(&[one()]).unwrap();
    assert!(writer.header.log().exists());
    assert!(!writer.header.next_log().exists());
    assert!(holds_one(&writer.shared));
}

fn filled(options: &SledOptions) -> Writer {
    let (mut writer, _) = Writer::open(options.clone()).unwrap();
    writer.write(&[one()]).unwrap();
    writer
}

fn another() -> Batch {
    let mut batch = Batch::new();
    batch.put("another".into(), "value".into());
    batch
}

/// So rarely that no test sees it.
const BUFFERED: Durability = Durability::Buffered {
    flush_every: Duration::from_secs(3600),
};

#[test]
fn a_commit_behind_a_failed_sync_goes_to_another_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = filled(&SledOptions::new(dir.path()));
    let (log, next) = (writer.header.log(), writer.header.next_log());
    writer.log.fail_syncs(1);
    writer.write(&[another()]).unwrap();
    assert_eq!(
        writer.header.log(),
        next,
        "a commit behind a hole was acknowledged"
    );
    assert_eq!(writer.log.dir(), next);
    assert!(!log.exists());
    drop(writer);
    let (_writer, shared) = Writer::open(SledOptions::new(dir.path())).unwrap();
    assert!(holds_one(&shared));
}

#[test]
fn a_log_in_doubt_that_can_t_be_copied_takes_no_commit_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = filled(&SledOptions::new(dir.path()));
    let next = writer.header.next_log();
    writer.log.fail_syncs(20);
    for _ in 0..3 {
        writer.write(&[another()]).unwrap_err();
        assert!(!writer.is_open(), "a log with a hole was opened");
        assert!(!next.exists(), "what there is of a copy takes room");
    }
    writer.log.fail_syncs(0);
    writer.write(&[another()]).unwrap();
    assert_eq!(writer.header.log(), next);
    assert!(holds_one(&writer.shared));
}

#[test]
fn the_next_process_does_not_trust_a_log_whose_sync_failed() {
    let dir = tempfile::tempdir().unwrap();
    let options = SledOptions::new(dir.path());
    let mut writer = filled(&options);
    let next = writer.header.next_log();
    writer.log.fail_syncs(20);
    writer.write(&[another()]).unwrap_err();
    drop(writer);
    for _ in 0..2 {
        let (writer, shared) = Writer::open(options.clone()).unwrap();
        assert_eq!(writer.header.log(), next);
        assert!(holds_one(&shared));
    }
}

#[test]
fn a_store_that_closes_tells_the_next_process_what_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let options = SledOptions::new(dir.path());
    let mut writer = filled(&options);
    let next = writer.header.next_log();
    writer.log.fail_syncs(1);
    writer.close().unwrap_err();
    drop(writer);
    let (writer, shared) = Writer::open(options).unwrap();
    assert_eq!(writer.header.log(), next);
    assert!(holds_one(&shared));
}

#[tokio::test]
async fn a_store_that_failed_opens_again_though_nobody_commits() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path()).unwrap();
    store.commit(one()).await.unwrap();
    let fail_syncs = |count| {
        let writer = store.writer.upgrade().unwrap();
        writer.lock().unwrap().log.fail_syncs(count);
    };
    fail_syncs(20);
    store.commit(another()).await.unwrap_err();
    store.get("key".into()).await.unwrap_err();
    fail_syncs(0);
    let opened = async {
        while store.get("key".into()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let opened = tokio::time::timeout(Duration::from_secs(30), opened).await;
    opened.expect("it opens by itself");
    store.close().await.unwrap();
}

#[test]
fn a_failed_write_back_of_which_only_sled_was_told_is_known_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = filled(&SledOptions::new(dir.path()));
    let next = writer.header.next_log();
    writer.log.fail_syncs(1);
    writer.reopen(&StoreError::Full);
    assert!(writer.is_open());
    assert_eq!(writer.header.log(), next);
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_of_which_nothing_was_lost_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = filled(&SledOptions::new(dir.path()));
    let log = writer.header.log();
    writer.reopen(&StoreError::Full);
    assert!(writer.is_open());
    assert_eq!(writer.header.log(), log);
}

#[test]
fn either_log_is_whole_while_it_is_not_known_whether_the_copy_took_the_place() {
    for names_next in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = SledOptions::new(dir.path());
        let mut writer = filled(&options);
        writer.log.fail_syncs(1);
        writer.header.fail();
        writer.write(&[another()]).unwrap_err();
        assert!(!writer.is_open());
        if names_next {
            writer.header.name_next();
        }
        drop(writer);
        let (_writer, shared) = Writer::open(options).unwrap();
        assert!(holds_one(&shared));
    }
}

#[test]
fn the_journal_keeps_what_it_has_until_the_sync_succeeded() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = filled(&SledOptions::new(dir.path()).durability(BUFFERED));
    writer.log.fail_syncs(20);
    writer.sync_in_time();
    assert!(!writer.journal.is_empty(), "only the log has it");
    writer.log.fail_syncs(0);
    writer.write(&[another()]).unwrap();
    assert!(holds_one(&writer.shared));
    writer.unsynced = Some(Instant::now());
    writer.sync().unwrap();
    assert!(writer.journal.is_empty());
}
