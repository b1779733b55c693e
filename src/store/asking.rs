//! Questions about users and challenges: what is asked while another question is answered is asked together, by one statement
//! over a list. What the answers mean is not known here.

use std::sync::LazyLock;

use sqlx::AssertSqlSafe;

use super::dossier::PartRow;
use super::gather::{Waiting, tell};
use super::{Db, Error, Result};
use crate::model::{Id, Timestamp};

/// A question: in the name of a relying party or by an API key, of a user or of a challenge and its user.
pub(super) struct Ask {
    key_hash: Option<Vec<u8>>,
    rp_id: Option<String>,
    user_id: Option<String>,
    challenge_id: Option<String>,
    now: i64,
}

impl Ask {
    /// In the name of a relying party.
    pub(super) fn of_party(rp: &Id, now: Timestamp) -> Ask {
        Ask { key_hash: None, rp_id: Some(rp.as_str().to_owned()), user_id: None, challenge_id: None, now: now.0 }
    }

    /// By an API key.
    pub(super) fn by_key(key_hash: &[u8], now: Timestamp) -> Ask {
        Ask { key_hash: Some(key_hash.to_vec()), rp_id: None, user_id: None, challenge_id: None, now: now.0 }
    }

    /// What is known of a user.
    pub(super) fn user(self, user_id: &str) -> Ask {
        Ask { user_id: Some(user_id.to_owned()), ..self }
    }

    /// A challenge, and what is known of its user.
    pub(super) fn challenge(self, id: &Id) -> Ask {
        Ask { challenge_id: Some(id.as_str().to_owned()), ..self }
    }
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
    from asked q cross join api_keys k where q.fresh = 1 and k.hash = q.key_hash
    union all
    select q.ask, 8, p.name, p.host, p.mode, p.origins, p.return_urls, p.created_at, null, null, null, null, null, null, null, null
    from asked q cross join api_keys k cross join relying_parties p where q.fresh = 1 and k.hash = q.key_hash and p.id = k.rp_id";

/// The most questions that are asked at once.
pub(super) const MOST: usize = 32;

/// The statements on SQLite for 1, 2, 4 … questions: places that are left over ask nothing.
static ON_SQLITE: LazyLock<Vec<String>> = LazyLock::new(|| {
    let sizes = std::iter::successors(Some(1), |size| Some(size * 2)).take_while(|size| *size <= MOST);
    let text = |size| {
        let places: Vec<String> = (0..size).map(|n| format!("({n}, ?, ?, ?, ?, ?, ?)")).collect();
        let places = places.join(", ");
        format!("with asked (ask, fresh, key_hash, rp_id, user_id, challenge_id, now) as (values {places}), {ANSWERS}")
    };
    sizes.map(text).collect()
});

/// The statement on PostgreSQL for any number of questions.
static ON_POSTGRES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "with asked (ask, fresh, key_hash, rp_id, user_id, challenge_id, now) as (
           select * from unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::bigint[])), {ANSWERS}"
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
    // A key and its relying party are asked for once, by the first of those who show it.
    let first = |ask: &Ask| asks.iter().position(|other| other.key_hash == ask.key_hash).unwrap_or_default();
    let firsts: Vec<usize> = asks.iter().map(first).collect();
    let fresh = firsts.iter().enumerate().map(|(n, first)| i64::from(n == *first));
    let rows: Vec<PartRow> = match db {
        Db::Sqlite(lite) => {
            let place = asks.len().next_power_of_two().trailing_zeros() as usize;
            let mut query = sqlx::query_as(AssertSqlSafe(ON_SQLITE[place].as_str()));
            for (ask, fresh) in asks.iter().zip(fresh) {
                query = query
                    .bind(fresh)
                    .bind(&ask.key_hash)
                    .bind(&ask.rp_id)
                    .bind(&ask.user_id)
                    .bind(&ask.challenge_id)
                    .bind(ask.now);
            }
            for _ in asks.len()..1 << place {
                query = query
                    .bind(0)
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
                .bind(fresh.collect::<Vec<_>>())
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
    for (n, first) in firsts.into_iter().enumerate().filter(|(n, first)| n != first) {
        let shared: Vec<_> = answers[first].iter().filter(|row| row.is_of_key()).cloned().collect();
        answers[n].extend(shared);
    }
    Ok(answers)
}

fn unread(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Error::Corrupt("dossier"),
        other => other.into(),
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
