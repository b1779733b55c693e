//! Challenges and the prompts that await a response.

use sqlx::FromRow;

use super::events::append;
use super::{ChallengeChange, Contest, Result, Settlement, Store, won};
use crate::model::{Challenge, Event, Id, MethodKind, Prompt, Timestamp};

#[derive(FromRow)]
struct PromptRow {
    owner_id: String,
    method: String,
    id: String,
    factor_id: Option<String>,
    sealed: Vec<u8>,
    sends: i64,
    sent_at: i64,
    expires_at: i64,
}

impl Store {
    /// Opens a challenge that awaits its answer.
    pub fn create_challenge(&self, challenge: &Challenge, event: &Event) -> impl Future<Output = Result<()>> + Send {
        let opened = ChallengeChange::Open(Box::new(challenge.clone()));
        self.settle(Settlement { challenge: opened, ..Settlement::telling(event.clone()) })
    }

    /// Calls a challenge off and ends its prompts; `Conflict(Challenge)` where it is no longer open.
    pub async fn cancel_challenge(&self, challenge: &Challenge, event: &Event) -> Result<()> {
        write!(self, (challenge, event) conn => {
            let done = sql! { conn,
                "update challenges set status = 'cancelled'
                 where rp_id = $1 and user_id = $2 and id = $3 and status = 'pending' and expires_at > $4",
                challenge.rp_id.as_str(), &challenge.user_id, challenge.id.as_str(), event.at.0
            };
            won(done, Contest::Challenge)?;
            sql! { conn,
                "delete from prompts where rp_id = $1 and user_id = $2 and owner_id = $3",
                challenge.rp_id.as_str(), &challenge.user_id, challenge.id.as_str()
            };
            append!(conn, &event);
            Ok(())
        })
    }

    /// Binds a challenge to the browser that opened its link; `Conflict(Token)` where another did.
    pub async fn open_challenge_link(&self, challenge: &Challenge, browser_hash: &[u8], now: Timestamp) -> Result<()> {
        write_one!(self, (challenge, browser_hash) conn => {
            let done = sql! { conn,
                "update challenges set link_opened_at = $1, browser_hash = $2
                 where rp_id = $3 and user_id = $4 and id = $5 and link_opened_at is null and link_hash is not null",
                now.0, browser_hash, challenge.rp_id.as_str(), &challenge.user_id, challenge.id.as_str()
            };
            won(done, Contest::Token)
        })
    }

    /// Gives an approved challenge a new one-time code in place of any before; `Conflict(Token)` once it was exchanged.
    pub async fn set_exchange_code(
        &self,
        challenge: &Challenge,
        code_hash: &[u8],
        expires_at: Timestamp,
    ) -> Result<()> {
        write_one!(self, (challenge, code_hash) conn => {
            let done = sql! { conn,
                "update challenges set code_hash = $1, code_expires_at = $2
                 where rp_id = $3 and user_id = $4 and id = $5 and status = 'approved' and exchanged_at is null",
                code_hash, expires_at.0, challenge.rp_id.as_str(), &challenge.user_id, challenge.id.as_str()
            };
            won(done, Contest::Token)
        })
    }

    /// What is awaited for this owner and method.
    pub async fn prompt(&self, rp: &Id, user_id: &str, owner: &Id, method: MethodKind) -> Result<Option<Prompt>> {
        let row: Option<PromptRow> = read_row! { self,
            "select owner_id, method, id, factor_id, sealed, sends, sent_at, expires_at from prompts
             where rp_id = $1 and user_id = $2 and owner_id = $3 and method = $4",
            rp.as_str(), user_id, owner.as_str(), method.as_str()
        };
        Ok(row.map(|row| Prompt {
            id: Id::stored(row.id),
            owner_id: Id::stored(row.owner_id),
            method: MethodKind::parse(&row.method).unwrap_or(method),
            factor_id: row.factor_id.map(Id::stored),
            sealed: row.sealed,
            sends: row.sends,
            sent_at: Timestamp(row.sent_at),
            expires_at: Timestamp(row.expires_at),
        }))
    }

    /// Puts a ceremony in the place of any before it.
    pub fn replace_prompt(&self, rp: &Id, user_id: &str, prompt: &Prompt) -> impl Future<Output = Result<()>> + Send {
        let nothing = Settlement::silent(rp.clone(), user_id.to_owned(), prompt.sent_at);
        self.settle(Settlement { awaited: Some(prompt.clone()), ..nothing })
    }
}
