//! Everything that a verdict about a user depends on, in one round trip: the parts of a union, told apart by their first column.

use sqlx::FromRow;

use super::{Error, Result, Store, ThrottleState, json};
use crate::model::{Challenge, Factor, Id, MethodKind, Prompt, RecoveryStatus, RecoverySummary, Timestamp, User};

/// What is known of a user.
#[derive(Clone, Default)]
pub struct Dossier {
    /// The user, if ever named.
    pub user: Option<User>,
    /// Live factors, active and pending, oldest first.
    pub factors: Vec<Factor>,
    /// Throttles that were ever charged.
    pub throttles: Vec<(MethodKind, ThrottleState)>,
    /// Recovery codes: the active set, else the unconfirmed one.
    pub recovery: Option<RecoverySummary>,
    /// What is awaited for the challenge that was asked for.
    pub prompts: Vec<Prompt>,
}

/// A row of any part; what a column means depends on `part`.
#[derive(FromRow)]
struct PartRow {
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

/// The parts about the user whom `$user` names, of the relying party `$1`, at the time `$3`.
macro_rules! parts_of {
    ($user:literal) => {
        concat!(
            "select cast(1 as bigint) as part, id as a, kind as b, name as c, details as d, credential_id as e,
               created_at as k, activated_at as l, expires_at as m, last_used_at as n, last_step as o, version as p,
               sealed as x, sealed as y, sealed as z
             from factors where rp_id = $1 and user_id = ", $user, " and (activated_at is not null or expires_at > $3)
             union all
             select 2, method, null, null, null, null, version, wrong, enrolment_wrong, paused_until, null, null, null, null, null
             from throttles where rp_id = $1 and user_id = ", $user, "
             union all
             select 3, user_id, display_name, login_hint, locale, null, created_at, null, null, null, null, null, handle, null, null
             from users where rp_id = $1 and user_id = ", $user, "
             union all
             select 4, s.id, null, null, null, null, s.created_at, s.activated_at,
               (select count(*) from recovery_codes c where c.rp_id = s.rp_id and c.user_id = s.user_id and c.set_id = s.id),
               (select count(*) from recovery_codes c where c.rp_id = s.rp_id and c.user_id = s.user_id and c.set_id = s.id and c.used_at is null),
               null, null, null, null, null
             from recovery_sets s where s.rp_id = $1 and s.user_id = ", $user
        )
    };
}

const OF_USER: &str = parts_of!("$2");

const OF_CHALLENGE: &str = concat!(
    parts_of!("(select user_id from challenges where rp_id = $1 and id = $2)"),
    " union all
      select 5, method, id, factor_id, null, null, sends, sent_at, expires_at, null, null, null, sealed, null, null
      from prompts where rp_id = $1 and owner_id = $2 and user_id = (select user_id from challenges where rp_id = $1 and id = $2)
      union all
      select 6, user_id, terms, status, proof, null, attempts_left, created_at, expires_at, link_opened_at, exchanged_at, null,
        link_hash, browser_hash, client_token_hash
      from challenges where rp_id = $1 and id = $2"
);

/// The statements of this file, for the test that prepares every statement.
pub const STATEMENTS: [&str; 2] = [OF_USER, OF_CHALLENGE];

impl Store {
    /// What is known of a user.
    pub async fn dossier(&self, rp: &Id, user_id: &str, now: Timestamp) -> Result<Dossier> {
        let rows: Vec<PartRow> = read_rows! { self, OF_USER, rp.as_str(), user_id, now.0 };
        Ok(assemble(rp, user_id, rows)?.1)
    }

    /// A challenge of this relying party, what is awaited for it, and what is known of its user.
    pub async fn case(&self, rp: &Id, challenge: &Id, now: Timestamp) -> Result<Option<(Challenge, Dossier)>> {
        let rows: Vec<PartRow> = read_rows! { self, OF_CHALLENGE, rp.as_str(), challenge.as_str(), now.0 };
        let user_id = rows.iter().find(|r| r.part == 6).and_then(|r| r.a.clone()).unwrap_or_default();
        let (found, dossier) = assemble(rp, &user_id, rows)?;
        Ok(found.map(|row| row.challenge(rp, challenge)).transpose()?.map(|challenge| (challenge, dossier)))
    }
}

/// Sorts the rows into their places; the challenge's own row is handed back.
fn assemble(rp: &Id, user_id: &str, rows: Vec<PartRow>) -> Result<(Option<PartRow>, Dossier)> {
    let mut dossier = Dossier::default();
    let mut challenge = None;
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
            _ => challenge = Some(row),
        }
    }
    let _ = rp;
    dossier.factors.sort_by(|a, b| a.id.cmp(&b.id));
    Ok((challenge, dossier))
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

    fn throttle(self) -> Result<(MethodKind, ThrottleState)> {
        const TABLE: &str = "throttles";
        let state = ThrottleState {
            version: there(self.k, TABLE)?,
            wrong: there(self.l, TABLE)?,
            enrolment_wrong: there(self.m, TABLE)?,
            paused_until: self.n.map(Timestamp),
        };
        Ok((there(self.a.as_deref().and_then(MethodKind::parse), TABLE)?, state))
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
