//! A SQLite file copied while it is written, and a copy put in its place without bringing back what was used up since.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor};

use super::journal::{self, Note};
use super::postgres;
use super::sessions::until_none;
use super::sqlite::{is_busy, real};
use super::users::{self, erase};
use super::webhooks::remove_endpoint;
use super::{Db, Error, Lock, Result, Store};
use crate::model::Timestamp;

/// What the rules of the methods say about the time of a restoration.
#[derive(Clone, Copy, Debug)]
pub struct Restoration<'a> {
    /// When.
    pub now: Timestamp,
    /// The method whose codes follow from the time, and the last step that may have been used.
    pub steps: (&'a str, i64),
    /// Whether this release may work on a schema that names this one as the oldest.
    pub suits: fn(&str) -> bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Where the former database was put; `None` where there was none.
    pub aside: Option<PathBuf>,
    /// Notes of the journal that were carried over; `None` where no journal reaches back to the backup.
    pub notes: Option<usize>,
    /// Sets of recovery codes that were retired, because nothing tells which of their codes were used.
    pub retired: u64,
    /// Whom the backup still knew and the journal says were erased since: of which relying party, and the pseudonym.
    pub erased: Vec<(String, String)>,
}

/// A server lists a connection for a moment after it has ended: how often it is looked at again, and after what time.
const LOOKS: u32 = 20;
const AGAIN: Duration = Duration::from_millis(100);

/// What was open ends: what was proven with it is not known any more.
const END: [&str; 7] = [
    "delete from prompts",
    "delete from challenges",
    "delete from sessions",
    "delete from portal_sessions",
    "delete from factors where activated_at is null",
    "delete from recovery_codes where set_id in (select id from recovery_sets where activated_at is null)",
    "delete from recovery_sets where activated_at is null",
];

/// Ends what was open and takes back what may have been used, on the connection of a transaction; tells how many sets of
/// recovery codes were retired, and who was erased.
macro_rules! make_safe {
    ($conn:expr, $restoration:expr, $notes:expr) => {{
        let Restoration { steps: (method, step), now, .. } = $restoration;
        for statement in END {
            sql! { $conn, statement };
        }
        sql! { $conn, "update factors set last_step = $1 where kind = $2 and last_step < $1", step, method };
        let notes: Option<&[Note]> = $notes;
        let mut gone = Vec::new();
        for note in notes.unwrap_or_default() {
            match note {
                Note::Code(set, hash) => {
                    sql! { $conn,
                        "update recovery_codes set used_at = $1 where set_id = $2 and hash = $3 and used_at is null",
                        now.0, set, hash
                    };
                }
                Note::Set(id) => {
                    sql! { $conn, "delete from recovery_codes where set_id = $1", id };
                    sql! { $conn, "delete from recovery_sets where id = $1", id };
                }
                Note::Factor(id) => {
                    sql! { $conn, "delete from factors where id = $1", id };
                }
                Note::Key(id) => {
                    sql! { $conn, "update api_keys set revoked_at = $1 where id = $2 and revoked_at is null", now.0, id };
                }
                Note::Webhook(rp, id) => {
                    remove_endpoint!($conn, rp, id);
                }
                Note::User(handle, pseudonym) => {
                    let erased: Vec<(String, String)> =
                        rows! { $conn, "select rp_id, user_id from users where handle = $1", handle };
                    for (rp, user_id) in erased {
                        erase!($conn, &rp, &user_id, pseudonym);
                        until_none! { $conn, users::DISGUISE, &rp, &user_id, pseudonym, users::SOME, i64::MAX };
                        gone.push((rp, pseudonym.clone()));
                    }
                }
            }
        }
        let retired = match notes {
            Some(_) => 0,
            None => {
                sql! { $conn, "delete from recovery_codes" };
                sql! { $conn, "delete from recovery_sets" }
            }
        };
        (retired, gone)
    }};
}

impl Store {
    /// Writes a copy of a SQLite file as it stands, while others write; the new file is whole or is not there.
    pub async fn backup(&self, file: &Path) -> Result<()> {
        let Db::Sqlite(lite) = &self.db else {
            return Err(Error::Unavailable("PostgreSQL is backed up by its own tools".to_owned()));
        };
        let failed = |e: io::Error| Error::Unavailable(format!("{}: {e}", file.display()));
        let part = file.with_added_extension("part");
        // Not in the place of one that is there: another may write it.
        let made = File::options().write(true).create_new(true).mode(0o600).open(&part);
        made.map_err(|e| Error::Unavailable(format!("{}: {e}", part.display())))?;
        let copied = async {
            let mut conn = lite.readers.acquire().await?;
            let copied = sqlx::query("vacuum into $1").bind(part.display().to_string()).execute(&mut *conn).await;
            conn.ended(&copied);
            copied?;
            File::open(&part).and_then(|copy| copy.sync_all()).map_err(failed)?;
            name(&part, file, std::fs::hard_link(&part, file)).map_err(failed)
        };
        let copied: Result<()> = copied.await;
        // A copy that nobody asked to be here holds everything too.
        let cleared = clear(&part).map_err(failed);
        copied.and(cleared)?;
        journal::sync_folder(file)
    }

    /// Makes safe what another tool has put in the place of a PostgreSQL database that nobody serves, for as long as it takes.
    /// Nothing tells which recovery codes were used since, so all are retired.
    pub async fn make_safe(url: &str, restoration: Restoration<'_>) -> Result<Restored> {
        let mut conn = postgres::without_limits(url).await?;
        let mut looks = 0;
        while postgres::is_served(&mut conn).await? {
            looks += 1;
            if looks == LOOKS {
                return Err(Error::Served);
            }
            tokio::time::sleep(AGAIN).await;
        }
        let mut write = conn.begin().await?;
        let (retired, erased) = make_safe!(write, restoration, None);
        write.commit().await?;
        conn.close().await?;
        Ok(Restored { retired, erased, ..Restored::default() })
    }

    /// Puts a backup in the place of a SQLite file that nobody serves. The former file stays beside it.
    pub async fn restore(database: &Path, backup: &Path, restoration: Restoration<'_>) -> Result<Restored> {
        let database = &real(database);
        let _lock = Lock::take(database)?;
        let copy = database.with_added_extension("restoring");
        let failed = |e: io::Error| Error::Unavailable(format!("{}: {e}", copy.display()));
        // What a restoration that was cut off left behind would be taken for this one's.
        clear(&copy).map_err(failed)?;
        let done = async {
            let mut from = File::open(backup).map_err(|e| Error::Unavailable(format!("{}: {e}", backup.display())))?;
            let mut to = File::options().write(true).create_new(true).mode(0o600).open(&copy).map_err(failed)?;
            std::io::copy(&mut from, &mut to).map_err(failed)?;
            let restored = prepare(&copy, database, restoration).await?;
            to.sync_all().map_err(failed)?;
            let aside = put_in_place(database, &copy, restoration.now).await?;
            Ok(Restored { aside, ..restored })
        };
        let done = done.await;
        let _ = clear(&copy);
        done
    }
}

/// Checks the copy, brings its schema up to date and makes it safe, by the journal beside the database whose place it takes.
async fn prepare(copy: &Path, database: &Path, restoration: Restoration<'_>) -> Result<Restored> {
    let mut conn = connect(copy).await?;
    let whole: String = sqlx::query_scalar("pragma integrity_check").fetch_one(&mut conn).await?;
    if whole != "ok" {
        return Err(Error::Corrupt("the backup"));
    }
    let oldest: Option<String> =
        sqlx::query_scalar("select value from meta where name = 'oldest_release'").fetch_optional(&mut conn).await?;
    if let Some(oldest) = oldest.filter(|oldest| !(restoration.suits)(oldest)) {
        return Err(Error::Refused(format!("the backup's schema needs release {oldest} or newer")));
    }
    let named = journal::name(&mut conn).await?;
    super::MIGRATIONS.run(&mut conn).await.map_err(|e| Error::Unavailable(e.to_string()))?;
    let notes = named.map(|name| journal::notes_of(database, &name)).transpose()?.flatten();
    let mut write = conn.begin_with("begin immediate").await?;
    let (retired, erased) = make_safe!(write, restoration, notes.as_deref());
    write.commit().await?;
    conn.close().await?;
    Ok(Restored { aside: None, notes: notes.map(|n| n.len()), retired, erased })
}

async fn connect(file: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(false).disable_statement_logging();
    let options = options.pragma("secure_delete", "on");
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// Gives a file its name, where there is none of that name, by what came of linking it there: unlike a renaming, a link never takes the
/// place of a file. Where there are no links, as on FAT and some shares, an empty file holds the place until the other takes it.
fn name(file: &Path, place: &Path, linked: io::Result<()>) -> io::Result<()> {
    match linked {
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
            File::options().write(true).create_new(true).mode(0o600).open(place)?;
            std::fs::rename(file, place).inspect_err(|_| drop(std::fs::remove_file(place)))
        }
        linked => linked,
    }
}

async fn put_in_place(database: &Path, copy: &Path, now: Timestamp) -> Result<Option<PathBuf>> {
    let failed = |e: io::Error| Error::Unavailable(format!("{}: {e}", database.display()));
    let place = database.with_added_extension(format!("replaced-{}", now.0));
    let is_there = database.exists();
    if is_there {
        // Leaving WAL mode takes what stands in the log into the file and works only for one who has it alone: whoever has it
        // open still would delete the log of the new file on leaving. A file that does not read is put aside as it is.
        let mut former = connect(database).await?;
        match former.execute("pragma journal_mode = delete").await.map_err(|e| e.into_database_error()) {
            Err(Some(error)) if is_busy(&*error) => {
                return Err(Error::InUse(database.display().to_string()));
            }
            _ => former.close().await?,
        }
        // At no time is there no file: an engine that starts would make an empty one.
        let aside = std::fs::hard_link(database, &place).or_else(|error| match error.kind() {
            // It may be another name of the same file, which a copy would empty.
            ErrorKind::AlreadyExists => Err(error),
            _ => std::fs::copy(database, &place).map(drop),
        });
        aside.map_err(failed)?;
    }
    // Also where the file they belong to is gone: SQLite would take what they hold into whatever lies there.
    let logs = LOGS.map(|log| (beside(database, log), beside(&place, log)));
    let logs: Vec<_> = logs.into_iter().filter(|(log, _)| log.exists()).collect();
    let moved = logs.iter().try_for_each(|(log, aside)| std::fs::rename(log, aside));
    if let Err(error) = moved.and_then(|()| std::fs::rename(copy, database)) {
        // The former file is not whole without them.
        for (log, aside) in logs.iter().filter(|(log, _)| !log.exists()) {
            let _ = std::fs::rename(aside, log);
        }
        return Err(failed(error));
    }
    journal::sync_folder(database)?;
    Ok((is_there || !logs.is_empty()).then_some(place))
}

/// What SQLite keeps beside a file.
const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Takes away a file that is only for the time being, and whatever SQLite left beside it.
fn clear(file: &Path) -> std::io::Result<()> {
    for left in LOGS.map(|log| beside(file, log)).into_iter().chain([file.to_owned()]) {
        match std::fs::remove_file(left) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also where there are no links, and never in the place of another.
    #[test]
    fn a_file_is_named_where_none_has_the_name() {
        let folder = std::env::temp_dir().join(format!("countersign-name-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let [part, place] = ["part", "place"].map(|name| folder.join(name));
        let without = || Err(ErrorKind::PermissionDenied.into());
        std::fs::write(&part, "new").expect("a file");
        name(&part, &place, without()).expect("it is named");
        std::fs::write(&part, "newer").expect("a file");
        let outcomes = [without(), std::fs::hard_link(&part, &place)];
        let kinds =
            outcomes.map(|linked| name(&part, &place, linked)).map(|named| named.expect_err("there is one").kind());
        assert_eq!(kinds, [ErrorKind::AlreadyExists; 2]);
        assert_eq!(std::fs::read_to_string(&place).expect("it is there"), "new");
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
