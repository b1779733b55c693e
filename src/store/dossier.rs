//! Everything that a verdict about a user depends on, in one round trip: the parts of a union, told apart by a column.
//! What is asked while another question is answered is asked together.

use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, FromRow};

use super::gather::{Waiting, tell};
use super::{Db, Error, Result, Store, ThrottleLane, json};
use crate::model::{
    ApiKey, Challenge, Factor, Id, MethodKind, Mode, Prompt, RecoveryStatus, RecoverySummary, RelyingParty, Timestamp,
    User,
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
#[derive(FromRow)]
pub(super) struct PartRow {
    ask: i64,
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
}

/// A question: in the name of a relying party or by an API key, of a user or of a challenge and its user.
pub(super) struct Ask {
    key_hash: Option<Vec<u8>>,
    rp_id: Option<String>,
    user_id: Option<String>,
    challenge_id: Option<String>,
    now: i64,
}

/// What answers all questions that were asked at once; its first column says which. Each table is reached by key from `who`,
/// which a planner without statistics would not know: so the joins are written in their order.
const ANSWERS: &str = "
    who (ask, rp_id, user_id, challenge_id, now) as materialized (
      select q.ask, coalesce(q.rp_id, k.rp_id), coalesce(q.user_id, c.user_id), c.id, q.now
      from asked q left join api_keys k on k.hash = q.key_hash
      left join challenges c on c.id = q.challenge_id and c.rp_id = coalesce(q.rp_id, k.rp_id))
    select w.ask, cast(1 as bigint) as part, f.id as a, f.kind as b, f.name as c, f.details as d, f.credential_id as e,
      f.created_at as k, f.activated_at as l, f.expires_at as m, f.last_used_at as n, f.last_step as o, f.version as p,
      f.sealed as x, f.sealed as y, f.sealed as z
    from who w cross join factors f
    where f.rp_id = w.rp_id and f.user_id = w.user_id and (f.activated_at is not null or f.expires_at > w.now)
    union all
    select w.ask, 2, t.lane, t.state, null, null, null, t.version, t.seen_at, t.paused_until, null, null, null, null, null, null
    from who w cross join throttle_lanes t where t.rp_id = w.rp_id and t.user_id = w.user_id
    union all
    select w.ask, 3, u.user_id, u.display_name, u.login_hint, u.locale, null, u.created_at, null, null, null, null, null, u.handle, null, null
    from who w cross join users u where u.rp_id = w.rp_id and u.user_id = w.user_id
    union all
    select w.ask, 4, s.id, null, null, null, null, s.created_at, s.activated_at,
      (select count(*) from recovery_codes c where c.rp_id = s.rp_id and c.user_id = s.user_id and c.set_id = s.id),
      (select count(*) from recovery_codes c where c.rp_id = s.rp_id and c.user_id = s.user_id and c.set_id = s.id and c.used_at is null),
      null, null, null, null, null
    from who w cross join recovery_sets s where s.rp_id = w.rp_id and s.user_id = w.user_id
    union all
    select w.ask, 5, p.method, p.id, p.factor_id, null, null, p.sends, p.sent_at, p.expires_at, null, null, null, p.sealed, null, null
    from who w cross join prompts p
    where p.rp_id = w.rp_id and p.user_id = w.user_id and p.owner_id = w.challenge_id
    union all
    select w.ask, 6, c.user_id, c.terms, c.status, c.proof, null, c.attempts_left, c.created_at, c.expires_at, c.link_opened_at,
      c.exchanged_at, null, c.link_hash, c.browser_hash, c.client_token_hash
    from who w cross join challenges c
    where c.rp_id = w.rp_id and c.user_id = w.user_id and c.id = w.challenge_id
    union all
    select q.ask, 7, k.id, k.hint, k.scopes, k.rp_id, null, k.created_at, k.expires_at, k.revoked_at, k.last_used_at, null, null, null, null, null
    from asked q cross join api_keys k where k.hash = q.key_hash
    union all
    select q.ask, 8, p.name, p.host, p.mode, p.origins, p.return_urls, p.created_at, null, null, null, null, null, null, null, null
    from asked q cross join api_keys k cross join relying_parties p where k.hash = q.key_hash and p.id = k.rp_id";

/// The most questions that are asked at once.
pub(super) const MOST: usize = 32;

/// The statements on SQLite for 1, 2, 4 … questions: places that are left over ask nothing.
static ON_SQLITE: LazyLock<Vec<String>> = LazyLock::new(|| {
    let sizes = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size <= MOST);
    let text = |size| {
        let places: Vec<String> = (0..size).map(|n| format!("({n}, ?, ?, ?, ?, ?)")).collect();
        let places = places.join(", ");
        format!("with asked (ask, key_hash, rp_id, user_id, challenge_id, now) as (values {places}), {ANSWERS}")
    };
    sizes.map(text).collect()
});

/// The statement on PostgreSQL for any number of questions.
static ON_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "with asked (ask, key_hash, rp_id, user_id, challenge_id, now) as (
           select * from unnest($1::bigint[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::bigint[])), {ANSWERS}"
    )
});

/// The statements that are put together, here and for kept answers, for the test that prepares every statement.
pub fn statements() -> Vec<&'static str> {
    let own = ON_SQLITE.iter().chain(std::iter::once(&*ON_POSTGRES)).map(String::as_str);
    own.chain([super::kept::KEEP]).collect()
}

/// Asks all questions at once. A row that does not read closes the answer that it belongs to, and no other.
pub(super) async fn answer(db: &Db, waiting: Vec<Waiting<Ask, Vec<PartRow>>>) {
    let (asks, waits): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
    match ask(db, &asks).await {
        Ok(answers) => waits.into_iter().zip(answers).for_each(|(waits, answer)| tell(waits, Ok(answer))),
        Err(Error::Corrupt(_)) if asks.len() > 1 => {
            for (one, waits) in asks.chunks(1).zip(waits) {
                tell(waits, ask(db, one).await.map(|mut answers| answers.remove(0)));
            }
        }
        Err(error) => waits.into_iter().for_each(|waits| tell(waits, Err(error.again()))),
    }
}

async fn ask(db: &Db, asks: &[Ask]) -> Result<Vec<Vec<PartRow>>> {
    let rows: Vec<PartRow> = match db {
        Db::Sqlite(lite) => {
            let place = asks.len().next_power_of_two().trailing_zeros() as usize;
            let mut query = sqlx::query_as(AssertSqlSafe(ON_SQLITE[place].as_str()));
            for ask in asks {
                query =
                    query.bind(&ask.key_hash).bind(&ask.rp_id).bind(&ask.user_id).bind(&ask.challenge_id).bind(ask.now);
            }
            for _ in asks.len()..1 << place {
                query = query
                    .bind(None::<Vec<u8>>)
                    .bind(None::<&str>)
                    .bind(None::<&str>)
                    .bind(None::<&str>)
                    .bind(None::<i64>);
            }
            query.fetch_all(&lite.readers).await.map_err(unread)?
        }
        Db::Postgres(postgres) => {
            let mut conn = postgres.acquire().await?;
            let query = sqlx::query_as(AssertSqlSafe(ON_POSTGRES.as_str()))
                .bind((0..asks.len() as i64).collect::<Vec<_>>())
                .bind(asks.iter().map(|a| a.key_hash.as_deref()).collect::<Vec<_>>())
                .bind(asks.iter().map(|a| a.rp_id.as_deref()).collect::<Vec<_>>())
                .bind(asks.iter().map(|a| a.user_id.as_deref()).collect::<Vec<_>>())
                .bind(asks.iter().map(|a| a.challenge_id.as_deref()).collect::<Vec<_>>())
                .bind(asks.iter().map(|a| a.now).collect::<Vec<_>>());
            postgres.answer(query.fetch_all(&mut *conn)).await.map_err(unread)?
        }
    };
    let mut answers: Vec<Vec<PartRow>> = asks.iter().map(|_| Vec::with_capacity(8)).collect();
    for row in rows {
        answers.get_mut(row.ask as usize).ok_or(Error::Corrupt("dossier"))?.push(row);
    }
    Ok(answers)
}

/// What one read found.
#[derive(Default)]
struct Found {
    dossier: Dossier,
    challenge: Option<PartRow>,
    key: Option<PartRow>,
    party: Option<PartRow>,
}

fn unread(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Error::Corrupt("dossier"),
        other => other.into(),
    }
}

impl Store {
    /// What is known of a user.
    pub async fn dossier(&self, rp: &Id, user_id: &str, now: Timestamp) -> Result<Dossier> {
        let rows = self.reads.ask(Ask { user_id: Some(user_id.to_owned()), ..Ask::of_party(rp, now) }).await?;
        Ok(assemble(user_id, rows)?.dossier)
    }

    /// A challenge of this relying party, what is awaited for it, and what is known of its user.
    pub async fn case(&self, rp: &Id, challenge: &Id, now: Timestamp) -> Result<Option<(Challenge, Dossier)>> {
        let ask = Ask { challenge_id: Some(challenge.as_str().to_owned()), ..Ask::of_party(rp, now) };
        let rows = self.reads.ask(ask).await?;
        challenge_of(rp, challenge, assemble(&user_of(&rows), rows)?)
    }

    /// The API key with this hash, its relying party, and what is known there of a user.
    pub async fn enter(
        &self,
        key_hash: &[u8],
        user_id: &str,
        now: Timestamp,
    ) -> Result<Option<(ApiKey, RelyingParty, Dossier)>> {
        let rows = self.reads.ask(Ask { user_id: Some(user_id.to_owned()), ..Ask::by_key(key_hash, now) }).await?;
        let mut found = assemble(user_id, rows)?;
        let Some((key, rp)) = found.key_and_party()? else { return Ok(None) };
        Ok(Some((key, rp, found.dossier)))
    }

    /// The API key with this hash, its relying party, and a challenge of it with what is known of its user.
    pub async fn enter_case(&self, key_hash: &[u8], challenge: &Id, now: Timestamp) -> Result<Option<Entered>> {
        let ask = Ask { challenge_id: Some(challenge.as_str().to_owned()), ..Ask::by_key(key_hash, now) };
        let rows = self.reads.ask(ask).await?;
        let mut found = assemble(&user_of(&rows), rows)?;
        let Some((key, rp)) = found.key_and_party()? else { return Ok(None) };
        let case = challenge_of(&rp.id, challenge, found)?;
        Ok(Some((key, rp, case)))
    }
}

impl Ask {
    fn of_party(rp: &Id, now: Timestamp) -> Ask {
        Ask { key_hash: None, rp_id: Some(rp.as_str().to_owned()), user_id: None, challenge_id: None, now: now.0 }
    }

    fn by_key(key_hash: &[u8], now: Timestamp) -> Ask {
        Ask { key_hash: Some(key_hash.to_vec()), rp_id: None, user_id: None, challenge_id: None, now: now.0 }
    }
}

/// An API key, its relying party, and a challenge with what is known of its user, if there is such a challenge.
pub type Entered = (ApiKey, RelyingParty, Option<(Challenge, Dossier)>);

fn user_of(rows: &[PartRow]) -> String {
    rows.iter().find(|r| r.part == 6).and_then(|r| r.a.clone()).unwrap_or_default()
}

fn challenge_of(rp: &Id, id: &Id, found: Found) -> Result<Option<(Challenge, Dossier)>> {
    let Some(row) = found.challenge else { return Ok(None) };
    Ok(Some((row.challenge(rp, id)?, found.dossier)))
}

/// Sorts the rows into their places.
fn assemble(user_id: &str, rows: Vec<PartRow>) -> Result<Found> {
    let mut found = Found::default();
    let dossier = &mut found.dossier;
    for row in rows {
        match row.part {
            1 => dossier.factors.push(row.factor(user_id)?),
            2 => dossier.throttles.push(row.throttle()?),
            3 => dossier.user = Some(row.user()?),
            4 => {
                let summary = row.recovery()?;
                if dossier.recovery.is_none_or(|r| r.status != RecoveryStatus::Active) {
                    dossier.recovery = Some(summary);
                }
            }
            5 => dossier.prompts.push(row.prompt()?),
            6 => found.challenge = Some(row),
            7 => found.key = Some(row),
            _ => found.party = Some(row),
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
        let rp = RelyingParty {
            id: rp_id.clone(),
            name: there(party.a, TABLE)?,
            host: there(party.b, TABLE)?,
            mode: Mode::stored(&there(party.c, TABLE)?),
            origins: json(TABLE, &there(party.d, TABLE)?)?,
            return_urls: json(TABLE, &there(party.e, TABLE)?)?,
            created_at: Timestamp(there(party.k, TABLE)?),
        };
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
            owner_id: Id::stored(String::new()),
            factor_id: self.c.map(Id::stored),
            sealed: there(self.x, TABLE)?,
            sends: there(self.k, TABLE)?,
            sent_at: Timestamp(there(self.l, TABLE)?),
            expires_at: Timestamp(there(self.m, TABLE)?),
        })
    }

    fn challenge(self, rp: &Id, id: &Id) -> Result<Challenge> {
        const TABLE: &str = "challenges";
        Ok(Challenge {
            id: id.clone(),
            rp_id: rp.clone(),
            user_id: there(self.a, TABLE)?,
            terms: json(TABLE, &there(self.b, TABLE)?)?,
            status: there(self.c, TABLE)?,
            attempts_left: there(self.k, TABLE)?,
            created_at: Timestamp(there(self.l, TABLE)?),
            expires_at: Timestamp(there(self.m, TABLE)?),
            proof: self.d.map(|p| json(TABLE, &p)).transpose()?,
            link_hash: self.x,
            link_opened_at: self.n.map(Timestamp),
            browser_hash: self.y,
            client_token_hash: self.z,
            exchanged_at: self.o.map(Timestamp),
        })
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;

    /// Nothing is walked but the questions themselves.
    #[tokio::test]
    async fn every_part_finds_its_rows_by_key_on_sqlite() {
        let mut conn = sqlx::SqliteConnection::connect("sqlite::memory:").await.expect("it opens");
        crate::store::MIGRATIONS.run(&mut conn).await.expect("the schema");
        for statement in ON_SQLITE.iter() {
            let plan = format!("explain query plan {statement}");
            let steps: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(AssertSqlSafe(plan)).fetch_all(&mut conn).await.expect("a plan");
            let asked = ["SCAN w", "SCAN q"];
            let walked = |step: &str| step.starts_with("SCAN") && !step.contains("CONSTANT") && !asked.contains(&step);
            let walks: Vec<_> = steps.iter().filter(|(_, _, _, step)| walked(step)).collect();
            assert!(walks.is_empty(), "{walks:?}\n{steps:?}");
        }
    }
}
