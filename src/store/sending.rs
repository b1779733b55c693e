//! Texts: reserved before a gateway is asked, settled when it has answered.

use sqlx::FromRow;

use super::events::append;
use super::users::take_user;
use super::{Contest, Error, Result, Store, json, text, won};
use crate::model::{Budget, BudgetKey, Event, Id, Prompt, Timestamp};

/// A budget's next state; its `version` is that which was read.
#[derive(Clone, Debug)]
pub struct BudgetChange {
    /// Which budget.
    pub key: BudgetKey,
    /// What it becomes.
    pub budget: Budget,
}

/// How the prompt that a text belongs to moves on. The gap to the next text begins with the reservation; the new code
/// takes the old one's place only when a gateway has accepted it.
#[derive(Clone, Debug)]
pub struct PromptChange {
    /// The prompt with the new code; its `sends` counts this text.
    pub next: Prompt,
    /// The prompt as it was read.
    pub before: Option<Prompt>,
}

/// Everything that is written before a gateway is asked.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// On whose behalf.
    pub rp_id: Id,
    /// To whom.
    pub user_id: String,
    /// The message.
    pub message: Id,
    /// Keyed hash of the number.
    pub number_hash: String,
    /// The number's country.
    pub country: Option<String>,
    /// When.
    pub at: Timestamp,
    /// What it draws on.
    pub budgets: Vec<BudgetChange>,
    /// The prompt that it belongs to.
    pub prompt: PromptChange,
}

#[derive(FromRow)]
struct BudgetRow {
    version: i64,
    day: i64,
    sent: i64,
    recent: String,
}

/// Writes a budget on the connection of a writing body; `Conflict(Budget)` where it moved on since it was read.
macro_rules! draw {
    ($conn:expr, $rp:expr, $at:expr, $change:expr) => {{
        let change: &BudgetChange = $change;
        let statement = match change.budget.version {
            0 => "insert into send_budgets (rp_id, budget, version, day, sent, recent, used_at) values ($1, $2, $3 + 1, $4, $5, $6, $7) on conflict do nothing",
            _ => "update send_budgets set version = $3 + 1, day = $4, sent = $5, recent = $6, used_at = $7 where rp_id = $1 and budget = $2 and version = $3",
        };
        let done = sql! { $conn,
            statement,
            $rp.as_str(), change.key.stored(), change.budget.version, change.budget.day, change.budget.sent,
            text(&change.budget.recent), $at.0
        };
        won(done, Contest::Budget)?;
    }};
}

impl Store {
    /// How a budget stands; an unwritten one is empty.
    pub async fn budget(&self, rp: &Id, key: &BudgetKey) -> Result<Budget> {
        let row: Option<BudgetRow> = read_row! { self,
            "select version, day, sent, recent from send_budgets where rp_id = $1 and budget = $2",
            rp.as_str(), key.stored()
        };
        let Some(row) = row else { return Ok(Budget::default()) };
        Ok(Budget { version: row.version, day: row.day, sent: row.sent, recent: json("send_budgets", &row.recent)? })
    }

    /// Draws on the budgets, begins the gap and writes the message down, in one step. `Conflict(Prompt)` where another text of
    /// the same owner is ahead, `Conflict(Budget)` where a budget moved on, `Conflict(User)` where the user was erased.
    pub async fn reserve_send(&self, reservation: &Reservation) -> Result<()> {
        write!(self, (reservation) conn => {
            let r = &reservation;
            won(take_user!(conn, r.rp_id.as_str(), &r.user_id), Contest::User)?;
            let PromptChange { next, before } = &r.prompt;
            let reserved = match before {
                // Without a code yet: it expires as it is made.
                None => sql! { conn,
                    "insert into prompts (rp_id, user_id, owner_id, method, id, sealed, sends, sent_at, expires_at)
                     values ($1, $2, $3, $4, $5, $6, $7, $8, $8) on conflict do nothing",
                    r.rp_id.as_str(), &r.user_id, next.owner_id.as_str(), next.method.as_str(), next.id.as_str(),
                    Vec::<u8>::new(), next.sends, next.sent_at.0
                },
                Some(before) => sql! { conn,
                    "update prompts set sends = $6, sent_at = $7
                     where rp_id = $1 and user_id = $2 and owner_id = $3 and method = $4 and id = $5 and sends = $8",
                    r.rp_id.as_str(), &r.user_id, next.owner_id.as_str(), next.method.as_str(), before.id.as_str(),
                    next.sends, next.sent_at.0, before.sends
                },
            };
            won(reserved, Contest::Prompt)?;
            for change in &r.budgets {
                draw!(conn, r.rp_id, r.at, change);
            }
            sql! { conn,
                "insert into messages (rp_id, user_id, id, number_hash, country, created_at) values ($1, $2, $3, $4,
                 $5, $6)",
                r.rp_id.as_str(), &r.user_id, r.message.as_str(), &r.number_hash, &r.country, r.at.0
            };
            Ok::<(), Error>(())
        })
    }

    /// A gateway accepted: the new code takes the old one's place; false where the prompt was answered meanwhile.
    pub async fn accept_send(
        &self,
        reservation: &Reservation,
        provider: &str,
        at: Timestamp,
        event: &Event,
    ) -> Result<bool> {
        write!(self, (reservation, provider, event) conn => {
            let r = &reservation;
            let done = sql! { conn,
                "update messages set provider = $1, accepted_at = $2 where rp_id = $3 and user_id = $4 and id = $5",
                &provider, at.0, r.rp_id.as_str(), &r.user_id, r.message.as_str()
            };
            won(done, Contest::User)?;
            let PromptChange { next, before } = &r.prompt;
            let done = sql! { conn,
                "update prompts set id = $6, factor_id = $7, sealed = $8, expires_at = $9
                 where rp_id = $1 and user_id = $2 and owner_id = $3 and method = $4 and id = $5 and sends = $10",
                r.rp_id.as_str(), &r.user_id, next.owner_id.as_str(), next.method.as_str(),
                before.as_ref().unwrap_or(next).id.as_str(), next.id.as_str(),
                next.factor_id.as_ref().map(|f| f.as_str()), &next.sealed, next.expires_at.0, next.sends
            };
            append!(conn, &event);
            Ok::<bool, Error>(done == 1)
        })
    }

    /// No gateway accepted: the budgets get back what was drawn, and the gap is as it was.
    pub async fn release_send(
        &self,
        reservation: &Reservation,
        budgets: &[BudgetChange],
        at: Timestamp,
        event: &Event,
    ) -> Result<()> {
        write!(self, (reservation, budgets, event) conn => {
            let r = &reservation;
            for change in &budgets {
                draw!(conn, r.rp_id, at, change);
            }
            let PromptChange { next, before } = &r.prompt;
            match before {
                None => sql! { conn,
                    "delete from prompts
                     where rp_id = $1 and user_id = $2 and owner_id = $3 and method = $4 and id = $5 and sends = $6",
                    r.rp_id.as_str(), &r.user_id, next.owner_id.as_str(), next.method.as_str(), next.id.as_str(),
                    next.sends
                },
                Some(before) => sql! { conn,
                    "update prompts set sends = $7, sent_at = $8
                     where rp_id = $1 and user_id = $2 and owner_id = $3 and method = $4 and id = $5 and sends = $6",
                    r.rp_id.as_str(), &r.user_id, next.owner_id.as_str(), next.method.as_str(), before.id.as_str(),
                    next.sends, before.sends, before.sent_at.0
                },
            };
            let done = sql! { conn,
                "update messages set failed_at = $1 where rp_id = $2 and user_id = $3 and id = $4",
                at.0, r.rp_id.as_str(), &r.user_id, r.message.as_str()
            };
            // Of somebody who was erased meanwhile nothing is told.
            if done == 1 {
                append!(conn, &event);
            }
            Ok::<(), Error>(())
        })
    }
}
