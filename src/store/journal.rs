//! What was used up or taken back for ever, noted beside a SQLite file before the commit that does it: an old backup that is
//! put in the file's place brings none of it back.
//!
//! A line a note. The first line names the journal; the database names the same, so that neither is taken for another's.
//! PostgreSQL has a log of its own, by which it is brought to its last commit, and needs no second one.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;

use super::{Error, Result};
use crate::model::{hex, unhex};

const HEADER: &str = "countersign journal 1 ";

/// What is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A recovery code of this set, by its hash, was used.
    Code(String, Vec<u8>),
    /// A set of recovery codes died.
    Set(String),
    /// A factor was removed.
    Factor(String),
    /// An API key was revoked.
    Key(String),
    /// A webhook endpoint of this relying party was removed.
    Webhook(String, String),
    /// A user was erased, whom the random handle tells; the pseudonym that audit rows keep.
    User(Vec<u8>, String),
}

impl Note {
    fn line(&self) -> String {
        match self {
            Note::Code(set, hash) => format!("code {set} {}", hex(hash)),
            Note::Set(id) => format!("set {id}"),
            Note::Factor(id) => format!("factor {id}"),
            Note::Key(id) => format!("key {id}"),
            Note::Webhook(rp, id) => format!("webhook {rp} {id}"),
            Note::User(handle, pseudonym) => format!("user {} {pseudonym}", hex(handle)),
        }
    }

    /// `None` for a line that broke off, which names nothing.
    fn read(line: &str) -> Option<Note> {
        let mut words = line.split(' ');
        let (kind, id) = (words.next()?, words.next()?.to_owned());
        match kind {
            "code" => Some(Note::Code(id, unhex(words.next()?)?)),
            "set" => Some(Note::Set(id)),
            "factor" => Some(Note::Factor(id)),
            "key" => Some(Note::Key(id)),
            "webhook" => Some(Note::Webhook(id, words.next()?.to_owned())),
            "user" => Some(Note::User(unhex(&id)?, words.next()?.to_owned())),
            _ => None,
        }
    }
}

/// A connection that can note.
pub(super) trait Noting {
    /// On disk when it returns; the transaction that does what is noted commits afterwards.
    fn note(&mut self, notes: Vec<Note>) -> impl Future<Output = Result<()>> + Send;
}

impl Noting for PgConnection {
    async fn note(&mut self, _: Vec<Note>) -> Result<()> {
        Ok(())
    }
}

impl Noting for SqliteConnection {
    async fn note(&mut self, notes: Vec<Note>) -> Result<()> {
        let file: String = sqlx::query_scalar("select file from pragma_database_list where name = 'main'")
            .fetch_one(&mut *self)
            .await?;
        let place = place(Path::new(&file));
        let written = tokio::task::spawn_blocking(move || append(&place, &notes)).await;
        written.map_err(|e| Error::Unavailable(e.to_string()))?
    }
}

/// Notes in the journal at this place; on disk when it returns.
pub(super) fn append(place: &Path, notes: &[Note]) -> Result<()> {
    if notes.is_empty() {
        return Ok(());
    }
    // Each begins a line, so that one that broke off ends where the next begins.
    let text: String = notes.iter().map(|note| format!("\n{}", note.line())).collect();
    let written = || {
        let mut journal = File::options().append(true).create(true).mode(0o600).open(place)?;
        journal.write_all(text.as_bytes())?;
        journal.sync_data()
    };
    written().map_err(|e| Error::Unavailable(format!("the journal: {e}")))
}

/// Where the journal of a SQLite file is.
pub(super) fn place(database: &Path) -> PathBuf {
    database.with_added_extension("used")
}

/// Sees to it that the file on this connection has its journal: takes it back where it was put aside, and begins one where there is
/// none. Another's is put aside.
pub(super) async fn begin(conn: &mut SqliteConnection, database: &Path) -> Result<()> {
    let place = place(database);
    let own = name(conn).await?.map(|name| find(&place, &name)).transpose()?.flatten();
    if own.as_ref() == Some(&place) {
        return Ok(());
    }
    let failed = |e: std::io::Error| Error::Unavailable(format!("{}: {e}", place.display()));
    let mut put = None;
    if place.exists() {
        // Each that was put aside may belong to a database that comes back.
        let aside = asides(&place).find(|aside| !aside.exists()).expect("some number is free");
        std::fs::rename(&place, &aside).map_err(failed)?;
        put = Some(aside);
    }
    if let Some(own) = own {
        std::fs::rename(&own, &place).map_err(failed)?;
        // No gap: they are looked through in their order.
        put.map_or(Ok(()), |put| std::fs::rename(put, &own)).map_err(failed)?;
        return sync_folder(database);
    }
    let name: String = sqlx::query_scalar("select lower(hex(randomblob(16)))").fetch_one(&mut *conn).await?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&place).map_err(failed)?;
    file.write_all(format!("{HEADER}{name}").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    sync_folder(database)?;
    sqlx::query(
        "insert into meta (name, value) values ('journal', $1) on conflict (name) do update set value = excluded.value",
    )
    .bind(&name)
    .execute(conn)
    .await?;
    Ok(())
}

/// The journal that the database on this connection names.
pub(super) async fn name(conn: &mut SqliteConnection) -> Result<Option<String>> {
    Ok(sqlx::query_scalar("select value from meta where name = 'journal'").fetch_optional(conn).await?)
}

/// The journal's name and what it notes; `None` where there is none, or it has no name.
pub(super) fn read(place: &Path) -> Result<Option<(String, Vec<Note>)>> {
    let bytes = match std::fs::read(place) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Unavailable(format!("{}: {error}", place.display()))),
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let Some(name) = lines.next().and_then(|first| first.strip_prefix(HEADER)) else { return Ok(None) };
    Ok(Some((name.to_owned(), lines.filter_map(Note::read).collect())))
}

/// What the journal of this name notes, in its place or put aside.
pub(super) fn notes_of(database: &Path, name: &str) -> Result<Option<Vec<Note>>> {
    let place = place(database);
    match find(&place, name)? {
        Some(found) => Ok(read(&found)?.map(|(_, notes)| notes)),
        None => Ok(None),
    }
}

/// Where the journal of this name is: in its place, or put aside when another database lay beside it, as an empty one that a command
/// made.
fn find(place: &Path, name: &str) -> Result<Option<PathBuf>> {
    for candidate in std::iter::once(place.to_owned()).chain(asides(place).take_while(|aside| aside.exists())) {
        if read(&candidate)?.is_some_and(|(found, _)| found == name) {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

/// Where journals are put that belong to another database, one behind the other.
fn asides(place: &Path) -> impl Iterator<Item = PathBuf> {
    (1..).map(|n| place.with_added_extension(format!("old-{n}")))
}

/// A new name in a folder is there after a crash.
pub(super) fn sync_folder(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|e| Error::Unavailable(format!("{}: {e}", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_and_what_broke_off_names_nothing() {
        let notes = [
            Note::Code("rec_1".to_owned(), vec![0, 171, 255]),
            Note::Set("rec_2".to_owned()),
            Note::Factor("fac_3".to_owned()),
            Note::Key("key_4".to_owned()),
            Note::Webhook("rp_1".to_owned(), "whk_6".to_owned()),
            Note::User(vec![7; 64], "erased_5".to_owned()),
        ];
        for note in &notes {
            assert_eq!(Note::read(&note.line()).as_ref(), Some(note));
        }
        for broken in ["", "code", "code rec_1", "code rec_1 0", "user 7", "fact"] {
            assert_eq!(Note::read(broken), None, "{broken}");
        }
    }
}
