//! Every table with sealed values, so that a new data key can reach them all: what is read, replaced and counted by the head of a
//! value, which names its key. A table that gets a sealed column gets a line here.

use sqlx::FromRow;

use super::{Error, Result, Store};

/// A table with sealed values.
pub struct SealedTable {
    /// Its name, which is part of the seal.
    pub name: &'static str,
    /// Rows behind `($2, $3, $4)` whose value does not begin with `$1`; at most `$5`.
    stale: &'static str,
    /// Replaces `$4` by `$5` in the row `($1, $2, $3)`.
    replace: &'static str,
    /// How many values begin with `$1`.
    pub(super) count: &'static str,
}

/// All of them.
pub const SEALED: [SealedTable; 6] = [
    SealedTable {
        name: "factors",
        stale: "select rp_id, user_id, id, sealed from factors
            where substr(sealed, 1, 9) <> $1 and (rp_id, user_id, id) > ($2, $3, $4) order by rp_id, user_id, id limit $5",
        replace: "update factors set sealed = $5 where rp_id = $1 and user_id = $2 and id = $3 and sealed = $4",
        count: "select count(*) from factors where substr(sealed, 1, 9) = $1",
    },
    SealedTable {
        name: "prompts",
        // Before a gateway has accepted a text, its prompt holds nothing.
        stale: "select rp_id, user_id, id, sealed from prompts
            where length(sealed) > 0 and substr(sealed, 1, 9) <> $1 and (rp_id, user_id, id) > ($2, $3, $4)
            order by rp_id, user_id, id limit $5",
        replace: "update prompts set sealed = $5 where rp_id = $1 and user_id = $2 and id = $3 and sealed = $4",
        count: "select count(*) from prompts where substr(sealed, 1, 9) = $1",
    },
    SealedTable {
        name: "signing_keys",
        stale: "select '' as rp_id, '' as user_id, kid as id, sealed from signing_keys
            where substr(sealed, 1, 9) <> $1 and (cast('' as text), cast('' as text), kid) > ($2, $3, $4) order by kid limit $5",
        replace: "update signing_keys set sealed = $5 where $1 = '' and $2 = '' and kid = $3 and sealed = $4",
        count: "select count(*) from signing_keys where substr(sealed, 1, 9) = $1",
    },
    SealedTable {
        name: "kept_answers.answer",
        stale: "select rp_id, user_id, id, answer as sealed from kept_answers
            where substr(answer, 1, 9) <> $1 and (rp_id, user_id, id) > ($2, $3, $4) order by rp_id, user_id, id limit $5",
        replace: "update kept_answers set answer = $5 where rp_id = $1 and user_id = $2 and id = $3 and answer = $4",
        count: "select count(*) from kept_answers where substr(answer, 1, 9) = $1",
    },
    SealedTable {
        name: "kept_answers.whole",
        stale: "select rp_id, user_id, id, whole as sealed from kept_answers
            where substr(whole, 1, 9) <> $1 and (rp_id, user_id, id) > ($2, $3, $4) order by rp_id, user_id, id limit $5",
        replace: "update kept_answers set whole = $5 where rp_id = $1 and user_id = $2 and id = $3 and whole = $4",
        count: "select count(*) from kept_answers where substr(whole, 1, 9) = $1",
    },
    SealedTable {
        name: "webhook_endpoints",
        stale: "select rp_id, '' as user_id, id, secrets as sealed from webhook_endpoints
            where substr(secrets, 1, 9) <> $1 and (rp_id, cast('' as text), id) > ($2, $3, $4) order by rp_id, id limit $5",
        replace: "update webhook_endpoints set secrets = $5 where rp_id = $1 and $2 = '' and id = $3 and secrets = $4",
        count: "select count(*) from webhook_endpoints where substr(secrets, 1, 9) = $1",
    },
];

/// A row with a sealed value.
#[derive(Clone, Debug, Default, FromRow)]
pub struct SealedRow {
    /// Whose, or empty.
    pub rp_id: String,
    /// Whose, or empty.
    pub user_id: String,
    /// Which.
    pub id: String,
    /// The value.
    pub sealed: Vec<u8>,
}

impl Store {
    /// Rows behind this one whose value was sealed by another key than the one that this head names.
    pub async fn stale_rows(
        &self,
        table: &SealedTable,
        head: &[u8],
        behind: &SealedRow,
        limit: i64,
    ) -> Result<Vec<SealedRow>> {
        Ok(read_rows! { self, table.stale, head, &behind.rp_id, &behind.user_id, &behind.id, limit })
    }

    /// Replaces values that are still what was read; tells how many were.
    pub async fn replace_sealed(&self, table: &SealedTable, rows: &[(SealedRow, Vec<u8>)]) -> Result<u64> {
        let statement = table.replace;
        write!(self, (rows) conn => {
            let mut done = 0;
            for (row, sealed) in &rows {
                done += sql! { conn, statement, &row.rp_id, &row.user_id, &row.id, &row.sealed, sealed };
            }
            Ok::<u64, Error>(done)
        })
    }

    /// How many values of a table begin with this head.
    pub async fn count_sealed(&self, table: &SealedTable, head: &[u8]) -> Result<i64> {
        let count: Option<i64> = read_scalar_if! { self, table.count, head };
        Ok(count.unwrap_or_default())
    }
}
