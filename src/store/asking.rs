//! Questions about keys, users, challenges and sessions: what is asked while another question is answered is asked together, on
//! PostgreSQL by one statement over a list, on SQLite part by part (`piecewise`). What the answers mean is not known here.

use std::sync::LazyLock;

use sqlx::AssertSqlSafe;

use super::dossier::PartRow;
use super::gather::{Waiting, tell};
use super::postgres::Postgres;
use super::{Error, Result};
use crate::model::{Id, Kind, Timestamp};

/// A question: in the name of a relying party or by an API key, of a user, of a challenge and its user, of a session, or of nothing
/// more; or of a challenge, its user and its relying party by the challenge's id alone.
#[derive(Default)]
pub(super) struct Ask {
    pub(super) key_hash: Option<Vec<u8>>,
    pub(super) rp_id: Option<String>,
    pub(super) user_id: Option<String>,
    pub(super) challenge_id: Option<Id>,
    pub(super) session_id: Option<String>,
    pub(super) token_hash: Option<Vec<u8>>,
    pub(super) now: i64,
}

impl Ask {
    /// In the name of a relying party.
    pub(super) fn of_party(rp: &Id, now: Timestamp) -> Ask {
        Ask { rp_id: Some(rp.as_str().to_owned()), now: now.0, ..Ask::default() }
    }

    /// By an API key.
    pub(super) fn by_key(key_hash: &[u8], now: Timestamp) -> Ask {
        Ask { key_hash: Some(key_hash.to_vec()), now: now.0, ..Ask::default() }
    }

    /// In nobody's name: what is found proves itself by its secret.
    pub(super) fn of_any(now: Timestamp) -> Ask {
        Ask { now: now.0, ..Ask::default() }
    }

    /// What is known of a user.
    pub(super) fn user(self, user_id: &str) -> Ask {
        Ask { user_id: Some(user_id.to_owned()), ..self }
    }

    /// A challenge, and what is known of its user.
    pub(super) fn challenge(self, id: &Id) -> Ask {
        Ask { challenge_id: Some(id.clone()), ..self }
    }

    /// The session in whose row the challenge lies, if it was answered in the call that made it.
    pub(super) fn at_once_id(&self) -> Option<Id> {
        self.challenge_id.as_ref().map(|id| id.sibling(Kind::Session))
    }

    /// A session.
    pub(super) fn session(self, which: Which<'_>) -> Ask {
        match which {
            Which::Id(id) => Ask { session_id: Some(id.as_str().to_owned()), ..self },
            Which::Token(hash) => Ask { token_hash: Some(hash.to_vec()), ..self },
        }
    }
}

/// Which session.
#[derive(Clone, Copy)]
pub enum Which<'a> {
    /// By its id.
    Id(&'a Id),
    /// By the hash of its token.
    Token(&'a [u8]),
}

/// A part of what answers a question: of what it tells, what is selected, and from which tables which rows, by key.
pub(super) struct Part(pub(super) Tells, pub(super) Of, pub(super) &'static str, pub(super) &'static [Rows]);

/// Of what a part tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tells {
    Factor,
    Throttle,
    User,
    Recovery,
    Prompt,
    Challenge,
    Key,
    /// The relying party of the key.
    KeyParty,
    /// The relying party of a challenge that was asked for by its id alone.
    Party,
    Session,
}

impl Tells {
    /// What the part of this number tells of; they begin at 1.
    pub(super) fn of(part: i64) -> Option<Tells> {
        let place = usize::try_from(part).ok()?.checked_sub(1)?;
        PARTS.get(place).map(|part| part.0)
    }
}

/// A table, and which of its rows, by key.
pub(super) type Rows = (&'static str, &'static str);

/// Which questions a part answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// All, as `w`.
    All,
    /// Those that name a challenge, as `w`.
    Challenge,
    /// Those that name a challenge which lies in its session's row, as `w`.
    AtOnce,
    /// Those that name a session, as `w`.
    Session,
    /// Of those that show the same key the first, as `q`.
    Key,
}

/// What is shown of a relying party.
const PARTY: &str = "p.name, p.host, p.mode, p.origins, p.return_urls,
         p.created_at, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, BYTES, BYTES, BYTES, BYTES";

/// What is shown of a session.
const SESSION: &str = "s.id, s.user_id, s.granted, s.factor_id, TEXT,
         s.created_at, s.expires_at, s.ended_at, s.added_at, s.removed_at, NUMBER, BYTES, BYTES, BYTES, BYTES";

/// The parts in the order of their numbers. All have columns of the same types; where one has nothing to say, it says of which
/// type.
pub(super) const PARTS: [Part; 12] = [
    Part(
        Tells::Factor,
        Of::All,
        "f.id, f.kind, f.name, f.details, f.credential_id,
         f.created_at, f.activated_at, f.expires_at, f.last_used_at, f.last_step, f.version, f.sealed, BYTES, BYTES, BYTES",
        &[(
            "factors f",
            "f.rp_id = w.rp_id and f.user_id = w.user_id and (f.activated_at is not null or f.expires_at > w.now)",
        )],
    ),
    Part(
        Tells::Throttle,
        Of::All,
        "t.lane, t.state, TEXT, TEXT, TEXT, t.version, t.seen_at, t.paused_until, NUMBER, NUMBER, NUMBER, BYTES, BYTES, BYTES, BYTES",
        &[("throttle_lanes t", "t.rp_id = w.rp_id and t.user_id = w.user_id")],
    ),
    Part(
        Tells::User,
        Of::All,
        "u.user_id, u.display_name, u.login_hint, u.locale, TEXT,
         u.created_at, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, u.handle, BYTES, BYTES, BYTES",
        &[("users u", "u.rp_id = w.rp_id and u.user_id = w.user_id")],
    ),
    Part(
        Tells::Recovery,
        Of::All,
        "s.id, TEXT, TEXT, TEXT, TEXT, s.created_at, s.activated_at,
         (select count(*) from recovery_codes r where r.rp_id = s.rp_id and r.user_id = s.user_id and r.set_id = s.id),
         (select count(*) from recovery_codes r where r.rp_id = s.rp_id and r.user_id = s.user_id and r.set_id = s.id
            and r.used_at is null), NUMBER, NUMBER, BYTES, BYTES, BYTES, BYTES",
        &[("recovery_sets s", "s.rp_id = w.rp_id and s.user_id = w.user_id")],
    ),
    Part(
        Tells::Prompt,
        Of::Challenge,
        "p.method, p.id, p.factor_id, p.owner_id, TEXT,
         p.sends, p.sent_at, p.expires_at, NUMBER, NUMBER, NUMBER, p.sealed, BYTES, BYTES, BYTES",
        &[("prompts p", "p.rp_id = w.rp_id and p.user_id = w.user_id and p.owner_id = w.challenge_id")],
    ),
    Part(
        Tells::Challenge,
        Of::Challenge,
        "c.user_id, c.terms, c.status, c.proof, c.rp_id, c.attempts_left, c.created_at, c.expires_at, c.link_opened_at,
         c.exchanged_at, c.code_expires_at, c.link_hash, c.browser_hash, c.client_token_hash, c.code_hash",
        &[("challenges c", "c.rp_id = w.rp_id and c.user_id = w.user_id and c.id = w.challenge_id")],
    ),
    Part(
        Tells::Challenge,
        Of::AtOnce,
        "s.user_id, s.terms, 'approved', s.proof, s.rp_id, s.attempts_left, s.created_at, s.answer_by, NUMBER,
         s.created_at, NUMBER, BYTES, BYTES, BYTES, BYTES",
        &[("sessions s", "s.rp_id = w.rp_id and s.user_id = w.user_id and s.id = w.at_once_id")],
    ),
    Part(
        Tells::Key,
        Of::Key,
        "k.id, k.hint, k.scopes, k.rp_id, TEXT,
         k.created_at, k.expires_at, k.revoked_at, k.last_used_at, NUMBER, NUMBER, BYTES, BYTES, BYTES, BYTES",
        &[("api_keys k", "k.hash = q.key_hash")],
    ),
    Part(Tells::KeyParty, Of::Key, PARTY, &[("api_keys k", "k.hash = q.key_hash"), ("relying_parties p", "p.id = k.rp_id")]),
    Part(Tells::Party, Of::Challenge, PARTY, &[("relying_parties p", "p.id = w.party")]),
    Part(Tells::Session, Of::Session, SESSION, &[("sessions s", "s.id = w.session_id and s.rp_id = w.rp_id")]),
    Part(Tells::Session, Of::Session, SESSION, &[("sessions s", "s.token_hash = w.token_hash and s.rp_id = w.rp_id")]),
];

/// What at least one of the questions that are asked at once names: the rest is not looked for.
#[derive(Clone, Copy)]
struct Names {
    challenge: bool,
    session: bool,
}

impl Names {
    const ALL: [Names; 4] = [
        Names { challenge: false, session: false },
        Names { challenge: true, session: false },
        Names { challenge: false, session: true },
        Names { challenge: true, session: true },
    ];

    fn of(asks: &[Ask]) -> Names {
        Names {
            challenge: asks.iter().any(|ask| ask.challenge_id.is_some()),
            session: asks.iter().any(|ask| ask.session_id.is_some() || ask.token_hash.is_some()),
        }
    }

    /// Its place in [`Names::ALL`].
    fn place(self) -> usize {
        usize::from(self.challenge) + 2 * usize::from(self.session)
    }

    fn want(self, of: &Of) -> bool {
        match of {
            Of::All | Of::Key => true,
            Of::Challenge | Of::AtOnce => self.challenge,
            Of::Session => self.session,
        }
    }
}

/// The most questions that are asked at once.
pub(super) const MOST: usize = 64;

/// What answers all questions of a table `asked` at once; its first column says which.
fn answers(names: Names) -> String {
    let key = reached(Join::Left, &("api_keys k", "k.hash = q.key_hash"));
    let named = [
        (
            "challenges c",
            "c.id = q.challenge_id and (c.rp_id = coalesce(q.rp_id, k.rp_id) or q.rp_id is null and q.key_hash is null)",
        ),
        (
            "sessions s",
            "c.id is null and s.id = q.at_once_id and s.terms is not null
               and (s.rp_id = coalesce(q.rp_id, k.rp_id) or q.rp_id is null and q.key_hash is null)",
        ),
    ];
    let (of_challenge, challenge) = match names.challenge {
        true => {
            let alone = "case when q.rp_id is null and q.key_hash is null then coalesce(c.rp_id, s.rp_id) end";
            let user = "coalesce(q.user_id, c.user_id, s.user_id)";
            let whose = format!("coalesce(q.rp_id, k.rp_id, {alone}), {alone}, {user}, c.id, s.id");
            (whose, named.iter().map(|rows| reached(Join::Left, rows)).collect())
        }
        false => ("coalesce(q.rp_id, k.rp_id), null, q.user_id, null, null".to_owned(), String::new()),
    };
    let part = |n: usize, Part(_, of, columns, tables): &Part| {
        let columns = [("TEXT", "text"), ("NUMBER", "bigint"), ("BYTES", "bytea")]
            .iter()
            .fold(columns.to_string(), |c, (word, kind)| c.replace(word, &format!("cast(null as {kind})")));
        let (asks, from, only) = match of {
            Of::Key => ("q", "asked q", " where q.fresh = 1"),
            Of::All | Of::Challenge | Of::AtOnce | Of::Session => ("w", "who w", ""),
        };
        let tables: String = tables.iter().map(|rows| reached(Join::Inner, rows)).collect();
        format!("select {asks}.ask, cast({} as bigint), {columns} from {from}{tables}{only}", n + 1)
    };
    let parts = PARTS.iter().enumerate().filter(|(_, part)| names.want(&part.1));
    let parts: Vec<String> = parts.map(|(n, one)| part(n, one)).collect();
    format!(
        "who (ask, now, session_id, token_hash, rp_id, party, user_id, challenge_id, at_once_id) as materialized (
           select q.ask, q.now, q.session_id, q.token_hash, {of_challenge} from asked q{key}{challenge})
         {}",
        parts.join("\n union all ")
    )
}

/// Whether what stands before is kept where a join finds nothing.
enum Join {
    Left,
    Inner,
}

/// A join with rows that are reached by key from what stands before, as a planner that thinks the table empty would not do it:
/// PostgreSQL's cannot take a subquery with an offset apart.
fn reached(join: Join, (table, rows): &Rows) -> String {
    let name = &table[table.len() - 1..];
    let join = match join {
        Join::Left => "left join",
        Join::Inner => "join",
    };
    format!(" {join} lateral (select * from {table} where {rows} offset 0) {name} on true")
}

/// The columns of a question.
const ASKED: &str =
    "asked (ask, fresh, key_hash, rp_id, user_id, challenge_id, at_once_id, session_id, token_hash, now)";

/// The statements on PostgreSQL for any number of questions, by what these name.
static ON_POSTGRES: LazyLock<[String; 4]> = LazyLock::new(|| {
    Names::ALL.map(|names| {
        let answers = answers(names);
        format!(
            "with {ASKED} as (
               select u.place - 1, u.fresh, ($2::bytea[])[u.place], ($3::text[])[u.place], ($4::text[])[u.place],
                 ($5::text[])[u.place], ($6::text[])[u.place], ($7::text[])[u.place], ($8::bytea[])[u.place], ($9::bigint[])[u.place]
               from unnest($1::bigint[]) with ordinality u (fresh, place)), {answers}"
        )
    })
});

/// Every statement that is put together here.
pub(super) fn statements() -> impl Iterator<Item = String> {
    ON_POSTGRES.iter().cloned()
}

/// Asks all questions at once. A row that does not read closes the answer that it belongs to, and no other.
pub(super) async fn on_postgres(postgres: &Postgres, waiting: Vec<Waiting<Ask, Vec<PartRow>>>) {
    let (asks, waits): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
    match ask(postgres, &asks).await {
        Ok(answers) => waits.into_iter().zip(answers).for_each(|(waits, answer)| tell(waits, Ok(answer))),
        Err(Error::Corrupt(_)) if asks.len() > 1 => {
            for (one, waits) in asks.chunks(1).zip(waits) {
                tell(waits, ask(postgres, one).await.map(|mut answers| answers.remove(0)));
            }
        }
        Err(error) => waits.into_iter().for_each(|waits| tell(waits, Err(error.again()))),
    }
}

async fn ask(postgres: &Postgres, asks: &[Ask]) -> Result<Vec<Vec<PartRow>>> {
    // A key and its relying party are asked for once, by the first of those who show it.
    let first = |ask: &Ask| asks.iter().position(|other| other.key_hash == ask.key_hash).unwrap_or_default();
    let firsts: Vec<usize> = asks.iter().map(first).collect();
    let fresh = firsts.iter().enumerate().map(|(n, first)| i64::from(n == *first));
    let mut conn = postgres.acquire().await?;
    let query = sqlx::query_as(AssertSqlSafe(ON_POSTGRES[Names::of(asks).place()].as_str()))
        .bind(fresh.collect::<Vec<_>>())
        .bind(asks.iter().map(|a| a.key_hash.as_deref()).collect::<Vec<_>>())
        .bind(asks.iter().map(|a| a.rp_id.as_deref()).collect::<Vec<_>>())
        .bind(asks.iter().map(|a| a.user_id.as_deref()).collect::<Vec<_>>())
        .bind(asks.iter().map(|a| a.challenge_id.as_ref().map(Id::as_str)).collect::<Vec<_>>())
        .bind(asks.iter().map(|a| a.at_once_id().map(|id| id.to_string())).collect::<Vec<_>>())
        .bind(asks.iter().map(|a| a.session_id.as_deref()).collect::<Vec<_>>())
        .bind(asks.iter().map(|a| a.token_hash.as_deref()).collect::<Vec<_>>())
        .bind(asks.iter().map(|a| a.now).collect::<Vec<_>>());
    let rows = postgres.answer(query.fetch_all(&mut *conn)).await;
    conn.ended(&rows);
    let rows: Vec<PartRow> = rows.map_err(unread)?;
    let mut answers: Vec<Vec<PartRow>> = firsts.iter().map(|_| Vec::with_capacity(8)).collect();
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
