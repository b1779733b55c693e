//! Users as far as the engine knows them.

use sqlx::FromRow;

use super::chain::HIGHEST;
use super::events::append;
use super::journal::{Note, Noting};
use super::recovery::dying_sets;
use super::sessions::until_none;
use super::{Error, Result, Store};
use crate::model::{Event, Id, Timestamp, User};

/// What pages show of a user: `None` leaves it as it is, `Some(None)` clears it.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// A name.
    pub display_name: Option<Option<String>>,
    /// What the person signs in with.
    pub login_hint: Option<Option<String>>,
    /// BCP 47.
    pub locale: Option<Option<String>>,
}

#[derive(FromRow)]
struct UserRow {
    user_id: String,
    handle: Vec<u8>,
    display_name: Option<String>,
    login_hint: Option<String>,
    locale: Option<String>,
    created_at: i64,
}

impl UserRow {
    fn model(self) -> Result<User> {
        Ok(User {
            user_id: self.user_id,
            handle: self.handle.try_into().map_err(|_| Error::Corrupt("users"))?,
            display_name: self.display_name,
            login_hint: self.login_hint,
            locale: self.locale,
            created_at: Timestamp(self.created_at),
        })
    }
}

/// So many events take a pseudonym in one write: one of all that somebody may have would outlast a statement's time, and others wait
/// for it.
pub(super) const SOME: i64 = 500;

/// Gives the pseudonym in the place of $3 to some of a user's numbered events, at most $4, up to the number $5.
pub(super) const DISGUISE: &str = "update events set user_id = $3, client = null, salt = null
     where rp_id = $1 and sequence is not null and sequence in (
       select sequence from events where rp_id = $1 and user_id = $2 and sequence is not null and sequence <= $5
       order by sequence limit $4)";

/// Takes the user's row, on the connection of a writing body; tells how many there are. Whatever adds, removes or ends what a user
/// has takes it first, so that of two neither decides by what the other is about to change.
macro_rules! take_user {
    ($conn:expr, $rp:expr, $user:expr) => {
        sql! { $conn, "update users set user_id = user_id where rp_id = $1 and user_id = $2", $rp, $user }
    };
}
pub(super) use take_user;

/// Erases a user on the connection of a writing body, but for all numbered events beyond some; tells how many of those are done.
macro_rules! erase {
    ($conn:expr, $rp:expr, $user:expr, $pseudonym:expr) => {{
        for statement in [
            "delete from factors where rp_id = $1 and user_id = $2",
            "delete from recovery_codes where rp_id = $1 and user_id = $2",
            "delete from recovery_sets where rp_id = $1 and user_id = $2",
            "delete from challenges where rp_id = $1 and user_id = $2",
            "delete from prompts where rp_id = $1 and user_id = $2",
            "delete from portal_sessions where rp_id = $1 and user_id = $2",
            "delete from throttle_lanes where rp_id = $1 and user_id = $2",
            // Of a release before, which may still run beside this one.
            "delete from throttles where rp_id = $1 and user_id = $2",
            "delete from messages where rp_id = $1 and user_id = $2",
            "delete from users where rp_id = $1 and user_id = $2",
        ] {
            sql! { $conn, statement, $rp, $user };
        }
        until_none! { $conn, "delete from sessions where rp_id = $1 and user_id = $2", $rp, $user };
        // What held one of these rows until now may have kept its answer with it.
        sql! { $conn, "delete from kept_answers where rp_id = $1 and user_id = $2", $rp, $user };
        // What has no number yet comes first: an event that is numbered between the two is found by the second.
        sql! { $conn,
            "update events set user_id = $3, client = null where sequence is null and rp_id = $1 and user_id = $2",
            $rp, $user, $pseudonym
        };
        sql! { $conn, crate::store::users::DISGUISE, $rp, $user, $pseudonym, crate::store::users::SOME, i64::MAX }
    }};
}
pub(super) use erase;

impl Store {
    /// The user, if ever named.
    pub async fn user(&self, rp: &Id, user_id: &str) -> Result<Option<User>> {
        let row: Option<UserRow> = read_row! { self,
            "select user_id, handle, display_name, login_hint, locale, created_at from users
             where rp_id = $1 and user_id = $2",
            rp.as_str(), user_id
        };
        row.map(UserRow::model).transpose()
    }

    /// Names a user if nobody has; an existing row stays as it is.
    pub async fn ensure_user(&self, rp: &Id, user: &User) -> Result<()> {
        write_one!(self, (rp, user) conn => {
            sql! { conn,
                "insert into users (rp_id, user_id, handle, created_at) values ($1, $2, $3, $4) on conflict do
                 nothing",
                rp.as_str(), &user.user_id, user.handle.as_slice(), user.created_at.0
            };
            Ok(())
        })
    }

    /// Writes what pages show of a user.
    pub async fn put_user(&self, rp: &Id, user: &User, names: &Names) -> Result<()> {
        write_one!(self, (rp, user, names) conn => {
            let is_given = |name: &Option<Option<String>>| i64::from(name.is_some());
            sql! { conn,
                "insert into users (rp_id, user_id, handle, display_name, login_hint, locale, created_at)
                 values ($1, $2, $3, $4, $5, $6, $7)
                 on conflict (rp_id, user_id) do update set
                 display_name = case when $8 = 1 then excluded.display_name else users.display_name end,
                 login_hint = case when $9 = 1 then excluded.login_hint else users.login_hint end,
                 locale = case when $10 = 1 then excluded.locale else users.locale end",
                rp.as_str(), &user.user_id, user.handle.as_slice(), names.display_name.as_ref().and_then(Option::as_ref),
                names.login_hint.as_ref().and_then(Option::as_ref), names.locale.as_ref().and_then(Option::as_ref),
                user.created_at.0, is_given(&names.display_name), is_given(&names.login_hint), is_given(&names.locale)
            };
            Ok(())
        })
    }

    /// Erases everything that is kept of a user; audit rows keep the pseudonym in the name's place (requirement V-05). Somebody who
    /// has very many is gone first, and they follow, some in each write: `Ok` is told when all have. Where it breaks off between
    /// two, it is asked for again.
    pub async fn erase_user(&self, rp: &Id, user_id: &str, pseudonym: &str, event: &Event) -> Result<()> {
        let (mut done, last) = self.erase_most(rp, user_id, pseudonym, event).await?;
        while done == SOME as u64 {
            done = write_one!(self, (rp, user_id, pseudonym, last) conn => {
                Ok(sql! { conn, DISGUISE, rp.as_str(), &user_id, &pseudonym, SOME, last })
            })?;
        }
        Ok(())
    }

    /// Tells how many events took the pseudonym, and the last number that may be this person's: who comes after may have the same id.
    async fn erase_most(&self, rp: &Id, user_id: &str, pseudonym: &str, event: &Event) -> Result<(u64, i64)> {
        write!(self, (rp, user_id, pseudonym, event) conn => {
            let handle: Option<Vec<u8>> = scalar_if! { conn,
                "select handle from users where rp_id = $1 and user_id = $2",
                rp.as_str(), &user_id
            };
            take_user!(conn, rp.as_str(), &user_id);
            let done = erase!(conn, rp.as_str(), &user_id, &pseudonym);
            let last: i64 = scalar! { conn, HIGHEST, rp.as_str() };
            append!(conn, &event);
            conn.note(handle.map(|handle| Note::User(handle, pseudonym)).into_iter().collect()).await?;
            Ok((done, last))
        })
    }

    /// Takes from a user everything that proves or was proved: factors, recovery codes, sessions, open challenges and portal
    /// sessions, known devices; and empties the other lanes. What the user is called stays.
    pub async fn reset_user(&self, rp: &Id, user_id: &str, event: &Event) -> Result<()> {
        write!(self, (rp, user_id, event) conn => {
            take_user!(conn, rp.as_str(), &user_id);
            let held: Vec<(String,)> =
                rows! { conn, "select id from factors where rp_id = $1 and user_id = $2", rp.as_str(), &user_id };
            let mut notes: Vec<Note> = held.into_iter().map(|(id,)| Note::Factor(id)).collect();
            notes.extend(dying_sets!(conn, rp.as_str(), &user_id));
            for statement in [
                "update throttle_lanes set version = version + 1, state = '{}', paused_until = null where rp_id = $1 and user_id = $2",
                "delete from throttle_lanes where rp_id = $1 and user_id = $2 and seen_at is not null",
                "update challenges set status = 'cancelled'
                 where rp_id = $1 and user_id = $2 and (status = 'pending' or status = 'approved' and exchanged_at is null)",
                "delete from prompts where rp_id = $1 and user_id = $2",
                "delete from factors where rp_id = $1 and user_id = $2",
                "delete from recovery_codes where rp_id = $1 and user_id = $2",
                "delete from recovery_sets where rp_id = $1 and user_id = $2",
                "delete from portal_sessions where rp_id = $1 and user_id = $2",
                // Again: a verdict that was under way, and held one of the rows above, may have made a device known.
                "delete from throttle_lanes where rp_id = $1 and user_id = $2 and seen_at is not null",
            ] {
                sql! { conn, statement, rp.as_str(), &user_id };
            }
            until_none! { conn,
                "update sessions set ended_at = $3 where rp_id = $1 and user_id = $2 and ended_at is null",
                rp.as_str(), &user_id, event.at.0
            };
            append!(conn, &event);
            conn.note(notes).await
        })
    }
}
