//! Questions on SQLite, answered part by part, each by a statement that is prepared once: where a statement runs on the thread that
//! asks, many short ones cost less than one that answers all.

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, ToSql};

use super::asking::{Ask, Of, PARTS, Part, Tells};
use super::dossier::PartRow;
use super::gather::{Waiting, tell};
use super::{Error, Result};
use crate::model::Id;

/// The statements on SQLite, one a part: what a question names has a number each, as [`Asked::values`] has its place.
static ON_SQLITE: LazyLock<Vec<String>> = LazyLock::new(|| PARTS.iter().map(by_itself).collect());

/// Whose a challenge is that is asked for by its id.
const WHOSE: &str = "select c.rp_id, c.user_id from challenges c where c.id = ?1";

/// The same of one that lies in its session's row, by that one's id.
const WHOSE_AT_ONCE: &str = "select s.rp_id, s.user_id from sessions s where s.id = ?1 and s.terms is not null";

fn by_itself(Part(_, _, columns, tables): &Part) -> String {
    let (table, rows) = tables[0];
    // SQLite takes joins that are no plain ones in their order.
    let others: String = tables[1..].iter().map(|(table, rows)| format!(" cross join {table} on {rows}")).collect();
    let text = format!("select {columns} from {table}{others} where {rows}");
    let nothing = ["TEXT", "NUMBER", "BYTES"].iter().fold(text, |text, word| text.replace(word, "null"));
    let names = [
        "w.now",
        "q.key_hash",
        "w.rp_id",
        "w.user_id",
        "w.challenge_id",
        "w.at_once_id",
        "w.party",
        "w.session_id",
        "w.token_hash",
    ];
    names.iter().zip(1..).fold(nothing, |text, (name, n)| text.replace(name, &format!("?{n}")))
}

/// Answers all in one reading transaction, and tells each.
pub(super) fn on_sqlite(conn: &Connection, waiting: Vec<Waiting<Ask, Vec<PartRow>>>) {
    let begun = conn.prepare_cached("begin").and_then(|mut begin| begin.execute([]));
    if let Err(error) = begun {
        let error = Error::from(error);
        return waiting.into_iter().for_each(|(_, waits)| tell(waits, Err(error.again())));
    }
    let mut keys: Vec<(Vec<u8>, Vec<PartRow>)> = Vec::new();
    for (ask, waits) in waiting {
        // What ended the transaction, as a broken disk may, ended it for all: what is read behind it would not fit together.
        let lost = || Error::Unavailable("the reading transaction ended".to_owned());
        tell(waits, if conn.is_autocommit() { Err(lost()) } else { ask_here(conn, &ask, &mut keys) });
    }
    let ended = conn.prepare_cached("commit").and_then(|mut commit| commit.execute([]));
    ended.inspect_err(|error| tracing::warn!(%error, "a reading transaction did not end")).unwrap_or_default();
}

/// A question as its parts draw on it.
struct Asked<'a> {
    ask: &'a Ask,
    rp_id: Option<&'a str>,
    user_id: Option<&'a str>,
    /// If it is there.
    challenge_id: Option<&'a str>,
    /// If the challenge lies there.
    at_once_id: Option<&'a str>,
    /// Of a challenge that was asked for by its id alone.
    party: Option<&'a str>,
}

impl Asked<'_> {
    fn values(&self) -> [&dyn ToSql; 9] {
        let Ask { key_hash, session_id, token_hash, now, .. } = self.ask;
        let Asked { rp_id, user_id, challenge_id, at_once_id, party, .. } = self;
        [now, key_hash, rp_id, user_id, challenge_id, at_once_id, party, session_id, token_hash]
    }

    /// Whether a part would find nothing, as it goes by what the question does not name.
    fn leaves_out(&self, part: &Part) -> bool {
        match (part.1, part.0) {
            (Of::Key, _) => true,
            (Of::All, _) => self.user_id.is_none(),
            (Of::Challenge, Tells::Party) => self.party.is_none(),
            (Of::Challenge, _) => self.challenge_id.is_none(),
            (Of::AtOnce, _) => self.at_once_id.is_none(),
            (Of::Session, _) => self.ask.session_id.is_none() && self.ask.token_hash.is_none(),
        }
    }

    /// The rows of the part with this number.
    fn read(&self, conn: &Connection, n: usize, rows: &mut Vec<PartRow>) -> rusqlite::Result<()> {
        let mut statement = conn.prepare_cached(&ON_SQLITE[n])?;
        for (place, value) in (1..=statement.parameter_count()).zip(self.values()) {
            statement.raw_bind_parameter(place, value)?;
        }
        let mut found = statement.raw_query();
        while let Some(row) = found.next()? {
            rows.push(PartRow::read(n as i64 + 1, row)?);
        }
        Ok(())
    }
}

/// What answers one question. Keys and their relying parties that were read for one before it are not read again.
fn ask_here(conn: &Connection, ask: &Ask, keys: &mut Vec<(Vec<u8>, Vec<PartRow>)>) -> Result<Vec<PartRow>> {
    let mut rows = Vec::with_capacity(8);
    let rp_id = ask.rp_id.as_deref();
    let nobody = Asked { ask, rp_id, user_id: None, challenge_id: None, at_once_id: None, party: None };
    if let Some(hash) = &ask.key_hash {
        match keys.iter().find(|(known, _)| known == hash) {
            Some((_, known)) => rows.extend_from_slice(known),
            None => {
                let mut of_key = PARTS.iter().enumerate().filter(|(_, part)| part.1 == Of::Key);
                of_key.try_for_each(|(n, _)| nobody.read(conn, n, &mut rows)).map_err(unread_here)?;
                keys.push((hash.clone(), rows.clone()));
            }
        }
    }
    let of_key = rows.iter().find_map(PartRow::party_of_key).map(str::to_owned);
    let rp_id = nobody.rp_id.or(of_key.as_deref());
    let whose = |statement, id: Option<&Id>| match id {
        Some(id) => whose(conn, statement, id).map_err(unread_here),
        None => Ok(None),
    };
    let challenge = whose(WHOSE, ask.challenge_id.as_ref())?;
    let at_once_id = if challenge.is_none() { ask.at_once_id() } else { None };
    let alone = ask.rp_id.is_none() && ask.key_hash.is_none();
    let whose = match challenge {
        None => whose(WHOSE_AT_ONCE, at_once_id.as_ref())?,
        found => found,
    };
    let whose = whose.filter(|(rp, _)| alone || Some(rp.as_str()) == rp_id);
    let found = whose.as_ref().map(|(rp, user)| (rp.as_str(), user.as_str()));
    let asked = Asked {
        ask,
        rp_id: rp_id.or(found.map(|(rp, _)| rp)),
        user_id: ask.user_id.as_deref().or(found.map(|(_, user)| user)),
        challenge_id: ask.challenge_id.as_ref().map(Id::as_str).filter(|_| found.is_some() && at_once_id.is_none()),
        at_once_id: at_once_id.as_ref().map(Id::as_str).filter(|_| found.is_some()),
        party: found.map(|(rp, _)| rp).filter(|_| alone),
    };
    for (n, part) in PARTS.iter().enumerate() {
        if !asked.leaves_out(part) {
            asked.read(conn, n, &mut rows).map_err(unread_here)?;
        }
    }
    Ok(rows)
}

fn whose(conn: &Connection, statement: &str, id: &Id) -> rusqlite::Result<Option<(String, String)>> {
    let mut statement = conn.prepare_cached(statement)?;
    statement.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

fn unread_here(error: rusqlite::Error) -> Error {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    match error {
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..) => {
            Error::Corrupt("dossier")
        }
        other => other.into(),
    }
}

/// Every statement that is put together here.
pub(super) fn statements() -> impl Iterator<Item = String> {
    ON_SQLITE.iter().cloned().chain([WHOSE, WHOSE_AT_ONCE].map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::trial::{database, walks};

    #[test]
    fn every_part_finds_its_rows_by_key() {
        let conn = database();
        for statement in statements() {
            assert_eq!(walks(&conn, &statement), [""; 0], "{statement}");
        }
    }
}
