//! Answers that are kept for callers who ask again: each written in the transaction of the effect that it tells of, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, FromRow};

use super::parts::Part;
use super::{Contest, Error, Result, Store, won};
use crate::model::{Id, Timestamp};

/// An answer to be kept, sealed; without one it holds the place while a text is on its way.
#[derive(Debug)]
pub struct Keep {
    /// On whose behalf.
    pub rp_id: Id,
    /// About whom; empty where nobody is named.
    pub user_id: String,
    /// What was asked: caller, method, path and key in one.
    pub id: String,
    /// The request that writes it; a place is filled by the one who took it.
    pub turn: String,
    /// With which body.
    pub body_hash: Vec<u8>,
    /// For as long as it is kept.
    pub answer: Option<Vec<u8>>,
    /// With its secrets, where it has any.
    pub whole: Option<Vec<u8>>,
    /// When.
    pub at: Timestamp,
    /// What was written until then makes way.
    pub expired: Timestamp,
    /// A place that was taken until then, and not filled, makes way.
    pub given_up: Timestamp,
    /// Set by the commit.
    pub stands: AtomicBool,
}

impl Keep {
    /// The values of [`FIRST`].
    pub(super) fn append_to(&self, values: &mut PgArguments) -> std::result::Result<(), BoxDynError> {
        values.add(self.rp_id.as_str())?;
        values.add(&self.id)?;
        values.add(&self.user_id)?;
        values.add(&self.turn)?;
        values.add(&self.body_hash)?;
        values.add(&self.answer)?;
        values.add(&self.whole)?;
        values.add(self.at.0)?;
        values.add(self.expired.0)?;
        values.add(self.given_up.0)
    }
}

/// Notes that an answer stands, if the write with which it goes does.
pub(super) fn mark<T>(keep: Option<&Keep>, settled: Result<T>) -> Result<T> {
    if let (Some(keep), Ok(_)) = (keep, &settled) {
        keep.stands.store(true, Ordering::Release);
    }
    settled
}

/// An answer as it is kept.
#[derive(FromRow)]
pub struct Kept {
    /// About whom.
    pub user_id: String,
    /// With which body it was asked.
    pub body_hash: Vec<u8>,
    /// `None` while a text is on its way.
    pub answer: Option<Vec<u8>>,
    /// With its secrets.
    pub whole: Option<Vec<u8>>,
    created_at: i64,
}

impl Kept {
    /// When it was written.
    pub fn at(&self) -> Timestamp {
        Timestamp(self.created_at)
    }
}

/// The statement that keeps an answer, its ten values numbered as they stand among others; no row where another copy was first.
macro_rules! keep_text {
    ($rp:literal $id:literal $user:literal $turn:literal $body:literal $answer:literal $whole:literal $at:literal $expired:literal $given_up:literal) => {
        concat!(
            "insert", " into kept_answers (rp_id, id, user_id, turn, body_hash, answer, whole, created_at)
             values (", $rp, ", ", $id, ", ", $user, ", ", $turn, ", ", $body, ", ", $answer, ", ", $whole, ", ", $at, ")
             on conflict (rp_id, id) do update set user_id = excluded.user_id, turn = excluded.turn,
               body_hash = excluded.body_hash, answer = excluded.answer, whole = excluded.whole, created_at = excluded.created_at
             where kept_answers.created_at <= ", $expired, " or (kept_answers.answer is null and
               (kept_answers.turn = excluded.turn or kept_answers.created_at <= ", $given_up, "))"
        )
    };
}

/// [`keep_text`] on its own.
pub(super) const KEEP: &str = keep_text!("$1" "$2" "$3" "$4" "$5" "$6" "$7" "$8" "$9" "$10");

/// The same as a part of a settlement, whose own 53 values stand before [`Keep::append_to`]'s.
pub(super) const FIRST: Part = (Contest::Kept, keep_text!("$54" "$55" "$56" "$57" "$58" "$59" "$60" "$61" "$62" "$63"));

const _: () = assert!(super::parts::VALUES == 53, "the places above begin behind a settlement's own");

/// Keeps the answer that a store carries, first in the transaction of a writing body: copies wait for each other here, and the
/// slower ones touch nothing.
macro_rules! keep {
    ($conn:expr, $keep:expr) => {
        if let Some(keep) = &$keep {
            let done = sql! { $conn,
                crate::store::kept::KEEP,
                keep.rp_id.as_str(), &keep.id, &keep.user_id, &keep.turn, &keep.body_hash, &keep.answer, &keep.whole,
                keep.at.0, keep.expired.0, keep.given_up.0
            };
            crate::store::won(done, crate::store::Contest::Kept)?;
        }
    };
}

impl Store {
    /// The same store, whose next write keeps this answer too; [`Error::Kept`] where another copy was first.
    pub fn keeping(&self, keep: Arc<Keep>) -> Store {
        Store { keep: Some(keep), ..self.clone() }
    }

    /// Keeps an answer that goes with no other write.
    pub async fn keep(&self, keep: Arc<Keep>) -> Result<()> {
        let store = self.keeping(keep);
        write!(store, () _conn => { Ok::<(), Error>(()) })
    }

    /// The answer kept for this question, unless it expired.
    pub async fn kept(&self, rp: &Id, id: &str, expired: Timestamp) -> Result<Option<Kept>> {
        Ok(read_row! { self,
            "select user_id, body_hash, answer, whole, created_at from kept_answers
             where rp_id = $1 and id = $2 and created_at > $3",
            rp.as_str(), id, expired.0
        })
    }

    /// Gives back a place that was taken and will not be filled; `Conflict(Row)` where it is another's by now.
    pub async fn give_way(&self, rp: &Id, id: &str, turn: &str) -> Result<()> {
        write_one!(self, (rp, id, turn) conn => {
            let done = sql! { conn,
                "delete from kept_answers where rp_id = $1 and id = $2 and turn = $3 and answer is null",
                rp.as_str(), &id, &turn
            };
            won(done, Contest::Row)
        })
    }
}
