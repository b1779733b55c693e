//! Everything that a verdict about a user depends on, asked at once: rows of all parts, told apart by their number.

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};

use super::asking::{Ask, Tells, Which};
use super::{Db, Error, Result, Store, ThrottleLane, json};
use crate::model::{
    ApiKey, Challenge, ChallengeStatus, Factor, Id, MethodKind, Mode, Prompt, RecoveryStatus, RecoverySummary,
    RelyingParty, Session, Timestamp, User,
};

/// What is known of a user.
#[derive(Clone, Default)]
pub struct Dossier {
    /// The user, if ever named.
    pub user: Option<User>,
    /// Live factors, active and pending, oldest first.
    pub factors: Vec<Factor>,
    /// Lanes that were ever written.
    pub throttles: Vec<ThrottleLane>,
    /// Recovery codes: the active set, else the unconfirmed one.
    pub recovery: Option<RecoverySummary>,
    /// What is awaited for the challenge that was asked for.
    pub prompts: Vec<Prompt>,
}

/// A row of any part; what a column means depends on `part`.
#[derive(Clone)]
pub(super) struct PartRow {
    /// Which question it answers.
    pub(super) ask: i64,
    part: i64,
    a: Option<String>,
    b: Option<String>,
    c: Option<String>,
    d: Option<String>,
    e: Option<String>,
    k: Option<i64>,
    l: Option<i64>,
    m: Option<i64>,
    n: Option<i64>,
    o: Option<i64>,
    p: Option<i64>,
    x: Option<Vec<u8>>,
    y: Option<Vec<u8>>,
    z: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
}

/// By place: a row is read some times a question, and a name would be looked up for each of its columns.
impl FromRow<'_, PgRow> for PartRow {
    fn from_row(row: &PgRow) -> sqlx::Result<PartRow> {
        Ok(PartRow {
            ask: row.try_get(0)?,
            part: row.try_get(1)?,
            a: row.try_get(2)?,
            b: row.try_get(3)?,
            c: row.try_get(4)?,
            d: row.try_get(5)?,
            e: row.try_get(6)?,
            k: row.try_get(7)?,
            l: row.try_get(8)?,
            m: row.try_get(9)?,
            n: row.try_get(10)?,
            o: row.try_get(11)?,
            p: row.try_get(12)?,
            x: row.try_get(13)?,
            y: row.try_get(14)?,
            z: row.try_get(15)?,
            last: row.try_get(16)?,
        })
    }
}

impl PartRow {
    /// The same from a row of SQLite that answers one question by the part of this number.
    pub(super) fn read(part: i64, row: &rusqlite::Row<'_>) -> rusqlite::Result<PartRow> {
        // Bytes that were written as a text are the same bytes.
        let bytes = |n: usize| Ok::<_, rusqlite::Error>(row.get_ref(n)?.as_bytes_or_null()?.map(<[u8]>::to_vec));
        Ok(PartRow {
            ask: 0,
            part,
            a: row.get(0)?,
            b: row.get(1)?,
            c: row.get(2)?,
            d: row.get(3)?,
            e: row.get(4)?,
            k: row.get(5)?,
            l: row.get(6)?,
            m: row.get(7)?,
            n: row.get(8)?,
            o: row.get(9)?,
            p: row.get(10)?,
            x: bytes(11)?,
            y: bytes(12)?,
            z: bytes(13)?,
            last: bytes(14)?,
        })
    }
}

/// What one read found.
#[derive(Default)]
struct Found {
    dossier: Dossier,
    challenge: Option<PartRow>,
    key: Option<PartRow>,
    party: Option<PartRow>,
    session: Option<PartRow>,
}

impl Store {
    /// The rows that answer a question.
    async fn ask(&self, ask: Ask) -> Result<Vec<PartRow>> {
        match &self.db {
            Db::Sqlite(lite) => lite.answerers.ask(ask).await,
            Db::Postgres(_, gathers) => gathers.asks.ask(ask).await,
        }
    }

    /// What is known of a user.
    pub async fn dossier(&self, rp: &Id, user_id: &str, now: Timestamp) -> Result<Dossier> {
        let rows = self.ask(Ask::of_party(rp, now).user(user_id)).await?;
        Ok(assemble(user_id, rows)?.dossier)
    }

    /// A challenge of this relying party, what is awaited for it, and what is known of its user.
    pub async fn case(&self, rp: &Id, challenge: &Id, now: Timestamp) -> Result<Option<(Challenge, Dossier)>> {
        let rows = self.ask(Ask::of_party(rp, now).challenge(challenge)).await?;
        challenge_of(challenge, assemble(&user_of(&rows), rows)?)
    }

    /// A challenge by its id alone, its relying party, and what is known of its user; the caller compares a secret.
    pub async fn any_case(&self, challenge: &Id, now: Timestamp) -> Result<Option<(RelyingParty, Challenge, Dossier)>> {
        let rows = self.ask(Ask::of_any(now).challenge(challenge)).await?;
        let mut found = assemble(&user_of(&rows), rows)?;
        let Some(party) = found.party.take() else { return Ok(None) };
        let Some((challenge, dossier)) = challenge_of(challenge, found)? else { return Ok(None) };
        Ok(Some((party.party(challenge.rp_id.clone())?, challenge, dossier)))
    }

    /// The API key with this hash, its relying party, and what is known there of a user.
    pub async fn enter(
        &self,
        key_hash: &[u8],
        user_id: &str,
        now: Timestamp,
    ) -> Result<Option<(ApiKey, RelyingParty, Dossier)>> {
        let rows = self.ask(Ask::by_key(key_hash, now).user(user_id)).await?;
        let mut found = assemble(user_id, rows)?;
        let Some((key, rp)) = found.key_and_party()? else { return Ok(None) };
        Ok(Some((key, rp, found.dossier)))
    }

    /// The API key with this hash, its relying party, and a challenge of it with what is known of its user.
    pub async fn enter_case(&self, key_hash: &[u8], challenge: &Id, now: Timestamp) -> Result<Option<Entered>> {
        let rows = self.ask(Ask::by_key(key_hash, now).challenge(challenge)).await?;
        let mut found = assemble(&user_of(&rows), rows)?;
        let Some((key, rp)) = found.key_and_party()? else { return Ok(None) };
        let case = challenge_of(challenge, found)?;
        Ok(Some((key, rp, case)))
    }

    /// The API key with this hash and its relying party.
    pub async fn api_key(&self, hash: &[u8], now: Timestamp) -> Result<Option<(ApiKey, RelyingParty)>> {
        let rows = self.ask(Ask::by_key(hash, now)).await?;
        assemble("", rows)?.key_and_party()
    }

    /// The API key with this hash, its relying party, and a session of it.
    pub async fn enter_session(
        &self,
        key_hash: &[u8],
        which: Which<'_>,
        now: Timestamp,
    ) -> Result<Option<(ApiKey, RelyingParty, Option<Session>)>> {
        let rows = self.ask(Ask::by_key(key_hash, now).session(which)).await?;
        let mut found = assemble("", rows)?;
        let Some((key, rp)) = found.key_and_party()? else { return Ok(None) };
        let session = found.session.map(|row| row.session(&rp.id)).transpose()?;
        Ok(Some((key, rp, session)))
    }
}

/// An API key, its relying party, and a challenge with what is known of its user, if there is such a challenge.
pub type Entered = (ApiKey, RelyingParty, Option<(Challenge, Dossier)>);

fn user_of(rows: &[PartRow]) -> String {
    rows.iter().find(|r| r.tells() == Some(Tells::Challenge)).and_then(|r| r.a.clone()).unwrap_or_default()
}

fn challenge_of(id: &Id, found: Found) -> Result<Option<(Challenge, Dossier)>> {
    let Some(row) = found.challenge else { return Ok(None) };
    Ok(Some((row.challenge(id)?, found.dossier)))
}

/// Sorts the rows into their places.
fn assemble(user_id: &str, rows: Vec<PartRow>) -> Result<Found> {
    let mut found = Found::default();
    let dossier = &mut found.dossier;
    for row in rows {
        match row.tells() {
            Some(Tells::Factor) => dossier.factors.push(row.factor(user_id)?),
            Some(Tells::Throttle) => dossier.throttles.push(row.throttle()?),
            Some(Tells::User) => dossier.user = Some(row.user()?),
            Some(Tells::Recovery) => {
                let summary = row.recovery()?;
                if dossier.recovery.is_none_or(|r| r.status != RecoveryStatus::Active) {
                    dossier.recovery = Some(summary);
                }
            }
            Some(Tells::Prompt) => dossier.prompts.push(row.prompt()?),
            Some(Tells::Challenge) => found.challenge = Some(row),
            Some(Tells::Key) => found.key = Some(row),
            Some(Tells::KeyParty | Tells::Party) => found.party = Some(row),
            Some(Tells::Session) => found.session = Some(row),
            None => return Err(Error::Corrupt("dossier")),
        }
    }
    dossier.factors.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

impl Found {
    fn key_and_party(&mut self) -> Result<Option<(ApiKey, RelyingParty)>> {
        const TABLE: &str = "api_keys";
        let (Some(key), Some(party)) = (self.key.take(), self.party.take()) else { return Ok(None) };
        let rp_id = Id::stored(there(key.d, TABLE)?);
        let rp = party.party(rp_id.clone())?;
        let key = ApiKey {
            id: Id::stored(there(key.a, TABLE)?),
            rp_id,
            hint: there(key.b, TABLE)?,
            scopes: json(TABLE, &there(key.c, TABLE)?)?,
            created_at: Timestamp(there(key.k, TABLE)?),
            expires_at: key.l.map(Timestamp),
            revoked_at: key.m.map(Timestamp),
            last_used_at: key.n.map(Timestamp),
        };
        Ok(Some((key, rp)))
    }
}

fn there<T>(value: Option<T>, table: &'static str) -> Result<T> {
    value.ok_or(Error::Corrupt(table))
}

impl PartRow {
    /// Whether it tells of the key that was shown, not of who was asked for.
    pub(super) fn is_of_key(&self) -> bool {
        matches!(self.tells(), Some(Tells::Key | Tells::KeyParty))
    }

    /// The relying party of the key that was shown, if this tells of the key.
    pub(super) fn party_of_key(&self) -> Option<&str> {
        self.d.as_deref().filter(|_| self.tells() == Some(Tells::Key))
    }

    fn tells(&self) -> Option<Tells> {
        Tells::of(self.part)
    }

    fn party(self, id: Id) -> Result<RelyingParty> {
        const TABLE: &str = "relying_parties";
        Ok(RelyingParty {
            id,
            name: there(self.a, TABLE)?,
            host: there(self.b, TABLE)?,
            mode: Mode::stored(&there(self.c, TABLE)?),
            origins: json(TABLE, &there(self.d, TABLE)?)?,
            return_urls: json(TABLE, &there(self.e, TABLE)?)?,
            created_at: Timestamp(there(self.k, TABLE)?),
        })
    }

    fn factor(self, user_id: &str) -> Result<Factor> {
        const TABLE: &str = "factors";
        Ok(Factor {
            id: Id::stored(there(self.a, TABLE)?),
            user_id: user_id.to_owned(),
            kind: there(self.b.as_deref().and_then(MethodKind::parse), TABLE)?,
            name: there(self.c, TABLE)?,
            details: json(TABLE, &there(self.d, TABLE)?)?,
            credential_id: self.e,
            created_at: Timestamp(there(self.k, TABLE)?),
            activated_at: self.l.map(Timestamp),
            expires_at: Timestamp(there(self.m, TABLE)?),
            last_used_at: self.n.map(Timestamp),
            last_step: there(self.o, TABLE)?,
            version: there(self.p, TABLE)?,
            sealed: there(self.x, TABLE)?,
        })
    }

    fn throttle(self) -> Result<ThrottleLane> {
        const TABLE: &str = "throttle_lanes";
        Ok(ThrottleLane {
            lane: there(self.a, TABLE)?,
            version: there(self.k, TABLE)?,
            state: there(self.b, TABLE)?,
            seen_at: self.l.map(Timestamp),
            paused_until: self.m.map(Timestamp),
        })
    }

    fn user(self) -> Result<User> {
        const TABLE: &str = "users";
        Ok(User {
            user_id: there(self.a, TABLE)?,
            handle: there(self.x, TABLE)?.try_into().map_err(|_| Error::Corrupt(TABLE))?,
            display_name: self.b,
            login_hint: self.c,
            locale: self.d,
            created_at: Timestamp(there(self.k, TABLE)?),
        })
    }

    fn recovery(self) -> Result<RecoverySummary> {
        const TABLE: &str = "recovery_sets";
        Ok(RecoverySummary {
            total: there(self.m, TABLE)?,
            remaining: there(self.n, TABLE)?,
            status: if self.l.is_some() { RecoveryStatus::Active } else { RecoveryStatus::Unconfirmed },
            created_at: self.k.map(Timestamp),
        })
    }

    fn prompt(self) -> Result<Prompt> {
        const TABLE: &str = "prompts";
        Ok(Prompt {
            method: there(self.a.as_deref().and_then(MethodKind::parse), TABLE)?,
            id: Id::stored(there(self.b, TABLE)?),
            owner_id: Id::stored(there(self.d, TABLE)?),
            factor_id: self.c.map(Id::stored),
            sealed: there(self.x, TABLE)?,
            sends: there(self.k, TABLE)?,
            sent_at: Timestamp(there(self.l, TABLE)?),
            expires_at: Timestamp(there(self.m, TABLE)?),
        })
    }

    fn session(self, rp: &Id) -> Result<Session> {
        const TABLE: &str = "sessions";
        Ok(Session {
            id: Id::stored(there(self.a, TABLE)?),
            rp_id: rp.clone(),
            user_id: there(self.b, TABLE)?,
            grant: json(TABLE, &there(self.c, TABLE)?)?,
            factor_id: self.d.map(Id::stored),
            created_at: Timestamp(there(self.k, TABLE)?),
            expires_at: Timestamp(there(self.l, TABLE)?),
            ended_at: self.m.map(Timestamp),
            added_at: self.n.map(Timestamp),
            removed_at: self.o.map(Timestamp),
        })
    }

    fn challenge(self, id: &Id) -> Result<Challenge> {
        const TABLE: &str = "challenges";
        Ok(Challenge {
            id: id.clone(),
            rp_id: Id::stored(there(self.e, TABLE)?),
            user_id: there(self.a, TABLE)?,
            terms: json(TABLE, &there(self.b, TABLE)?)?,
            status: there(self.c.as_deref().and_then(ChallengeStatus::stored), TABLE)?,
            attempts_left: there(self.k, TABLE)?,
            created_at: Timestamp(there(self.l, TABLE)?),
            expires_at: Timestamp(there(self.m, TABLE)?),
            proof: self.d.map(|p| json(TABLE, &p)).transpose()?,
            link_hash: self.x,
            link_opened_at: self.n.map(Timestamp),
            browser_hash: self.y,
            client_token_hash: self.z,
            code: self.last.zip(self.p.map(Timestamp)),
            exchanged_at: self.o.map(Timestamp),
        })
    }
}
