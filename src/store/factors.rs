//! Factors: pending, active, gone.

use sqlx::FromRow;

use super::events::append;
use super::journal::{Note, Noting};
use super::recovery::dying_sets;
use super::sessions::{stands, until_none};
use super::users::take_user;
use super::{Contest, Error, Result, Store, json, text, won};
use crate::model::{Details, Event, Factor, Id, MethodKind, Prompt, Timestamp};

#[derive(FromRow)]
struct FactorRow {
    user_id: String,
    id: String,
    kind: String,
    name: String,
    details: String,
    created_at: i64,
    activated_at: Option<i64>,
    expires_at: i64,
    last_used_at: Option<i64>,
    last_step: i64,
    version: i64,
    sealed: Vec<u8>,
    credential_id: Option<String>,
}

impl FactorRow {
    fn model(self) -> Result<Factor> {
        Ok(Factor {
            id: Id::stored(self.id),
            user_id: self.user_id,
            kind: MethodKind::parse(&self.kind).ok_or(Error::Corrupt("factors"))?,
            name: self.name,
            details: json("factors", &self.details)?,
            created_at: Timestamp(self.created_at),
            activated_at: self.activated_at.map(Timestamp),
            expires_at: Timestamp(self.expires_at),
            last_used_at: self.last_used_at.map(Timestamp),
            last_step: self.last_step,
            version: self.version,
            sealed: self.sealed,
            credential_id: self.credential_id,
        })
    }
}

/// A factor to be made.
#[derive(Clone)]
pub struct NewFactor {
    /// The factor.
    pub factor: Factor,
    /// What is awaited of it.
    pub prompt: Option<Prompt>,
    /// How many pending factors the user may have beside it, of any kind and of its own.
    pub beside: (usize, usize),
    /// What is written down of it.
    pub event: Event,
}

/// The first proof of a pending factor stands.
#[derive(Clone)]
pub struct Activation {
    /// Which.
    pub id: Id,
    /// What may be shown from now on.
    pub details: Details,
    /// What replaces the sealed part; `None` keeps it.
    pub sealed: Option<Vec<u8>>,
    /// A credential id, unique within the relying party.
    pub credential_id: Option<String>,
    /// The step that the first code spent.
    pub last_step: i64,
}

/// The name of an enrolment that ran out is free again. Its row bears a name that nobody can give until it is purged, so that
/// whoever comes too late is told so; it is never activated (`ACTIVATE` in `parts`).
macro_rules! free_names {
    ($conn:expr, $rp:expr, $user:expr, $now:expr) => {
        sql! { $conn,
            "update factors set name = ' ' || id
where rp_id = $1 and user_id = $2 and activated_at is null and expires_at <= $3 and name <> ' ' || id",
            $rp, $user, $now
        }
    };
}

/// The session on which a permission rests: whatever is allowed by it is done only while it stands.
#[derive(Clone, Debug)]
pub enum Leave {
    /// A recovery-code session, whose one right it spends.
    Right(Id),
    /// Any other, which stays.
    Session(Id),
}

/// On what condition a factor is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It was judged as one that is pending, and must be so still; `Conflict(Factor)` where it is not.
    WhilePending,
    /// It must not be the only active one; `Conflict(Row)` where it is.
    ButTheLast,
    /// On none.
    Any,
}

impl Store {
    /// All live factors of a user, active and pending, oldest first.
    pub async fn factors(&self, rp: &Id, user_id: &str, now: Timestamp) -> Result<Vec<Factor>> {
        let rows: Vec<FactorRow> = read_rows! { self,
            "select user_id, id, kind, name, details, created_at, activated_at, expires_at, last_used_at, last_step,
             version, sealed, credential_id
             from factors where rp_id = $1 and user_id = $2 and (activated_at is not null or expires_at > $3) order
             by id",
            rp.as_str(), user_id, now.0
        };
        rows.into_iter().map(FactorRow::model).collect()
    }

    /// One factor of a user, whatever its state.
    pub async fn factor(&self, rp: &Id, user_id: &str, id: &Id) -> Result<Option<Factor>> {
        let row: Option<FactorRow> = read_row! { self,
            "select user_id, id, kind, name, details, created_at, activated_at, expires_at, last_used_at, last_step,
             version, sealed, credential_id
             from factors where rp_id = $1 and user_id = $2 and id = $3",
            rp.as_str(), user_id, id.as_str()
        };
        row.map(FactorRow::model).transpose()
    }

    /// Makes a pending factor; `Conflict(Name)` where its name is taken, `Conflict(Row)` where a parallel one took it first,
    /// `Conflict(Limit)` where as many are pending as may be, `Conflict(User)` where the user was erased meanwhile.
    pub async fn create_factor(&self, rp: &Id, new: &NewFactor) -> Result<()> {
        write!(self, (rp, new) conn => {
            let factor = &new.factor;
            // So two of them cannot each be the last that may be.
            won(take_user!(conn, rp.as_str(), &factor.user_id), Contest::User)?;
            free_names!(conn, rp.as_str(), &factor.user_id, factor.created_at.0);
            let held: Vec<(String, String, Option<i64>)> = rows! { conn,
                "select name, kind, activated_at from factors
                 where rp_id = $1 and user_id = $2 and (activated_at is not null or expires_at > $3)",
                rp.as_str(), &factor.user_id, factor.created_at.0
            };
            let pending = held.iter().filter(|(_, _, activated_at)| activated_at.is_none());
            let of_kind = pending.clone().filter(|(_, kind, _)| kind == factor.kind.as_str());
            if pending.count() > new.beside.0 || of_kind.count() > new.beside.1 {
                return Err(Error::Conflict(Contest::Limit));
            }
            if held.iter().any(|(name, _, _)| *name == factor.name) {
                return Err(Error::Conflict(Contest::Name));
            }
            sql! { conn,
                "insert into factors (rp_id, user_id, id, kind, name, details, created_at, expires_at, last_step,
                 version, sealed)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                rp.as_str(), &factor.user_id, factor.id.as_str(), factor.kind.as_str(), &factor.name, text(&factor.details),
                factor.created_at.0, factor.expires_at.0, factor.last_step, factor.version, &factor.sealed
            };
            if let Some(prompt) = &new.prompt {
                sql! { conn,
                    "insert into prompts (rp_id, user_id, owner_id, method, id, factor_id, sealed, sends, sent_at, expires_at)
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                    rp.as_str(), &factor.user_id, prompt.owner_id.as_str(), prompt.method.as_str(), prompt.id.as_str(),
                    prompt.factor_id.as_ref().map(|f| f.as_str()), &prompt.sealed, prompt.sends, prompt.sent_at.0,
                    prompt.expires_at.0
                };
            }
            append!(conn, &new.event);
            Ok(())
        })
    }

    /// Whose factor has this credential id.
    pub async fn credential_holder(&self, rp: &Id, credential_id: &str) -> Result<Option<String>> {
        Ok(read_scalar_if! { self,
            "select user_id from factors where rp_id = $1 and credential_id = $2",
            rp.as_str(), credential_id
        })
    }

    /// Drops a pending factor whose enrolment came to nothing; `Conflict(Factor)` where it is active or gone, or, `unless_sent`, a code of
    /// this method awaits its answer.
    pub async fn drop_pending_factor(
        &self,
        rp: &Id,
        user_id: &str,
        id: &Id,
        unless_sent: Option<MethodKind>,
        event: &Event,
    ) -> Result<()> {
        let sent = unless_sent.map_or("", MethodKind::as_str);
        write!(self, (rp, user_id, id, event) conn => {
            if !sent.is_empty() {
                // Waits for a commit under way that notes the code as sent: the look below sees what it wrote.
                sql! { conn,
                    "update prompts set sends = sends where rp_id = $1 and user_id = $2 and owner_id = $3 and method = $4",
                    rp.as_str(), &user_id, id.as_str(), sent
                };
            }
            let gone = sql! { conn,
                "delete from factors where rp_id = $1 and user_id = $2 and id = $3 and activated_at is null and not exists
                   (select 1 from prompts
                    where rp_id = $1 and user_id = $2 and owner_id = $3 and method = $4 and length(sealed) > 0)",
                rp.as_str(), &user_id, id.as_str(), sent
            };
            won(gone, Contest::Factor)?;
            append!(conn, &event);
            Ok(())
        })
    }

    /// Renames; `Conflict(Name)` where the user has the name, `Conflict(Factor)` where the factor is gone.
    pub async fn rename_factor(
        &self,
        rp: &Id,
        user_id: &str,
        id: &Id,
        name: &str,
        now: Timestamp,
        event: Option<&Event>,
    ) -> Result<()> {
        let event = event.cloned();
        write!(self, (rp, user_id, id, name, now, event) conn => {
            free_names!(conn, rp.as_str(), &user_id, now.0);
            let taken: i64 = scalar! { conn,
                "select count(*) from factors where rp_id = $1 and user_id = $2 and name = $3 and id <> $4",
                rp.as_str(), &user_id, &name, id.as_str()
            };
            if taken > 0 {
                return Err(Error::Conflict(Contest::Name));
            }
            let done = sql! { conn,
                "update factors set name = $1 where rp_id = $2 and user_id = $3 and id = $4",
                &name, rp.as_str(), &user_id, id.as_str()
            };
            won(done, Contest::Factor)?;
            if let Some(event) = &event {
                append!(conn, event);
            }
            Ok(())
        })
    }

    /// Removes a factor, its open prompts, and the sessions that it earned; recovery codes go with the last active factor.
    /// `Conflict(Factor)` where it is gone, or no longer what [`Removal`] says.
    ///
    /// With `right_of`, spends the right of that recovery-code session to remove one; `Conflict(Session)` where it was spent.
    pub async fn remove_factor(
        &self,
        rp: &Id,
        user_id: &str,
        id: &Id,
        removal: Removal,
        leave: Option<&Leave>,
        event: &Event,
    ) -> Result<()> {
        let leave = leave.cloned();
        write!(self, (rp, user_id, id, leave, event) conn => {
            let now = event.at.0;
            let granted = match &leave {
                None => 1,
                Some(Leave::Right(session)) => sql! { conn,
                    "update sessions set removed_at = $1
                     where rp_id = $2 and user_id = $3 and id = $4 and removed_at is null and ended_at is null",
                    now, rp.as_str(), &user_id, session.as_str()
                },
                Some(Leave::Session(session)) => stands!(conn, rp.as_str(), &user_id, session.as_str(), now),
            };
            won(granted, Contest::Session)?;
            // So two of them cannot each leave the other as the last.
            take_user!(conn, rp.as_str(), &user_id);
            let gone = sql! { conn,
                "delete from factors
                 where rp_id = $1 and user_id = $2 and id = $3 and (activated_at is null or cast($4 as bigint) = 0)",
                rp.as_str(), &user_id, id.as_str(), i64::from(removal == Removal::WhilePending)
            };
            won(gone, Contest::Factor)?;
            let left: i64 = scalar! { conn,
                "select count(*) from factors where rp_id = $1 and user_id = $2 and activated_at is not null",
                rp.as_str(), &user_id
            };
            if left == 0 && removal == Removal::ButTheLast {
                return Err(Error::Conflict(Contest::Row));
            }
            sql! { conn,
                "delete from prompts where rp_id = $1 and user_id = $2 and (owner_id = $3 or factor_id = $3)",
                rp.as_str(), &user_id, id.as_str()
            };
            until_none! { conn,
                "update sessions set ended_at = $1 where rp_id = $2 and user_id = $3 and factor_id = $4 and ended_at is null",
                now, rp.as_str(), &user_id, id.as_str()
            };
            let mut notes = vec![Note::Factor(id.as_str().to_owned())];
            if left == 0 {
                notes.extend(dying_sets!(conn, rp.as_str(), &user_id));
                for statement in [
                    "delete from recovery_codes where rp_id = $1 and user_id = $2",
                    "delete from recovery_sets where rp_id = $1 and user_id = $2",
                ] {
                    sql! { conn, statement, rp.as_str(), &user_id };
                }
            }
            append!(conn, &event);
            conn.note(notes).await
        })
    }
}
