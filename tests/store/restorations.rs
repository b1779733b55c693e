//! A backup that does not get into the place of a SQLite file: what lay there is as it was.

use std::path::{Path, PathBuf};

use countersign::config::Database;
use countersign::model::Timestamp;
use countersign::store::{Restoration, Restored, Store};

use crate::database::Scratch;

/// A database's file and a backup of it; whoever served it has ended.
struct Left {
    _scratch: Scratch,
    database: PathBuf,
    backup: PathBuf,
}

impl Left {
    async fn behind() -> Left {
        let scratch = Scratch::sqlite();
        let Database::Sqlite(database) = scratch.storage.database.clone() else { panic!("it is SQLite") };
        let store = scratch.store().await;
        let backup = database.with_file_name("backup.db");
        store.backup(&backup).await.expect("a backup");
        store.close().await;
        Left { _scratch: scratch, database, backup }
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.database.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    }

    async fn restore(&self, now: i64) -> countersign::store::Result<Restored> {
        let restoration = Restoration { now: Timestamp(now), steps: ("totp", 0), suits: |_| true };
        Store::restore(&self.database, &self.backup, restoration).await
    }
}

fn bytes(file: &Path) -> Option<Vec<u8>> {
    std::fs::read(file).ok()
}

/// What holds the last commits of a file that is gone, or of one that does not read, is moved back where not all of it can be
/// put aside.
#[tokio::test]
async fn logs_that_were_put_aside_are_put_back_where_the_restoration_fails() {
    let left = Left::behind().await;
    std::fs::remove_file(&left.database).expect("it is there");
    let (log, rest) = (left.beside("-wal"), left.beside("-journal"));
    std::fs::write(&log, b"what came last").expect("a log");
    std::fs::write(&rest, b"and before").expect("a log");
    // Nothing is put where a folder lies.
    let in_the_way = left.beside(".replaced-7-journal");
    std::fs::create_dir(&in_the_way).expect("a folder");
    left.restore(7).await.expect_err("one of the logs stays");
    assert_eq!(bytes(&log).as_deref(), Some(&b"what came last"[..]));
    assert_eq!(bytes(&rest).as_deref(), Some(&b"and before"[..]));
    assert!(!left.database.exists() && bytes(&left.beside(".replaced-7-wal")).is_none());
    std::fs::remove_dir(&in_the_way).expect("it is there");
    let restored = left.restore(7).await.expect("nothing is in the way");
    assert_eq!(restored.aside, Some(left.beside(".replaced-7")));
    assert_eq!(bytes(&left.beside(".replaced-7-wal")).as_deref(), Some(&b"what came last"[..]));
    assert!(left.database.exists() && bytes(&log).is_none());
}

/// Of two backups to one name one is written, whole: what lies there while it is made is nobody else's.
#[tokio::test]
async fn two_backups_of_one_name_do_not_meet() {
    let scratch = Scratch::sqlite();
    let store = scratch.store().await;
    let file = scratch.folder().join("backup.db");
    let part = file.with_added_extension("part");
    std::fs::write(&part, "half of one").expect("a file");
    let refused = store.backup(&file).await.expect_err("another is being written");
    assert!(refused.to_string().contains("backup.db.part"), "{refused}");
    assert_eq!(bytes(&part).as_deref(), Some(&b"half of one"[..]));
    std::fs::remove_file(&part).expect("it goes");
    store.backup(&file).await.expect("a backup");
    assert!(file.exists() && !part.exists());
}

/// What an earlier restoration put aside at the same moment, or left there as a second name of the file, is not written over.
#[tokio::test]
async fn a_file_that_was_put_aside_before_is_not_written_over() {
    let left = Left::behind().await;
    let aside = left.beside(".replaced-7");
    std::fs::hard_link(&left.database, &aside).expect("a second name");
    left.restore(7).await.expect_err("there is no place for it");
    assert!(bytes(&aside).is_some_and(|former| !former.is_empty()));
    assert_eq!(bytes(&aside), bytes(&left.database));
    let restored = left.restore(8).await.expect("there is a place for it");
    assert_eq!(restored.aside, Some(left.beside(".replaced-8")));
    assert_eq!(bytes(&aside), bytes(&left.beside(".replaced-8")));
}

/// A backup that this release may not work on takes no database's place.
#[tokio::test]
async fn a_backup_of_a_newer_release_is_refused_before_anything_is_moved() {
    let left = Left::behind().await;
    let before = bytes(&left.database);
    let restoration = Restoration { now: Timestamp(7), steps: ("totp", 0), suits: |oldest| oldest != "0.1.0" };
    let refused = Store::restore(&left.database, &left.backup, restoration).await.expect_err("it is newer");
    assert!(refused.to_string().contains("needs release 0.1.0 or newer"), "{refused}");
    assert_eq!(bytes(&left.database), before);
    assert!(!left.beside(".replaced-7").exists() && !left.beside(".restoring").exists());
}
