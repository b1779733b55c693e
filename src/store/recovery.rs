//! Recovery codes: sets and the hashes of their codes.

use sqlx::FromRow;

use super::events::append;
use super::{Contest, Error, Result, Store, won};
use crate::model::{Event, Id, RecoverySet, RecoveryStatus, RecoverySummary, Timestamp};

#[derive(FromRow)]
struct SetRow {
    id: String,
    salt: Vec<u8>,
    pepper: i64,
    created_at: i64,
    activated_at: Option<i64>,
}

impl Store {
    /// The set that redeems, with the hashes of the codes that are left.
    pub async fn recovery_set(&self, rp: &Id, user_id: &str) -> Result<Option<RecoverySet>> {
        let Some(row) = self.sets(rp, user_id).await?.into_iter().find(|s| s.activated_at.is_some()) else {
            return Ok(None);
        };
        let unused: Vec<Vec<u8>> = read!(self, db => {
            sqlx::query_scalar(
                "select hash from recovery_codes where rp_id = $1 and user_id = $2 and set_id = $3 and used_at is null",
            )
            .bind(rp.as_str())
            .bind(user_id)
            .bind(&row.id)
            .fetch_all(db)
            .await
        })?;
        Ok(Some(RecoverySet { id: Id::stored(row.id), salt: row.salt, pepper: row.pepper, unused }))
    }

    /// What may be shown: of the active set, else of the unconfirmed one.
    pub async fn recovery_summary(&self, rp: &Id, user_id: &str) -> Result<RecoverySummary> {
        let sets = self.sets(rp, user_id).await?;
        let Some(set) = sets.iter().max_by_key(|s| s.activated_at.is_some()) else { return Ok(RecoverySummary::NONE) };
        let (total, remaining): (i64, i64) = read!(self, db => {
            sqlx::query_as(
                "select count(*), count(*) - count(used_at) from recovery_codes where rp_id = $1 and user_id = $2 and set_id = $3",
            )
            .bind(rp.as_str())
            .bind(user_id)
            .bind(&set.id)
            .fetch_one(db)
            .await
        })?;
        let status = if set.activated_at.is_some() { RecoveryStatus::Active } else { RecoveryStatus::Unconfirmed };
        Ok(RecoverySummary { total, remaining, status, created_at: Some(Timestamp(set.created_at)) })
    }

    async fn sets(&self, rp: &Id, user_id: &str) -> Result<Vec<SetRow>> {
        Ok(read!(self, db => {
            sqlx::query_as(
                "select id, salt, pepper, created_at, activated_at from recovery_sets where rp_id = $1 and user_id = $2",
            )
            .bind(rp.as_str())
            .bind(user_id)
            .fetch_all(db)
            .await
        })?)
    }

    /// Makes a set. A confirmed one replaces every other at once, an unconfirmed one only another unconfirmed one;
    /// `Conflict(Row)` where a parallel maker was first.
    pub async fn create_recovery_set(
        &self,
        rp: &Id,
        user_id: &str,
        set: &RecoverySet,
        confirmed: bool,
        event: &Event,
    ) -> Result<()> {
        write!(self, (rp, user_id, set, event) conn => {
            let replaced: [&'static str; 2] = match confirmed {
                true => [
                    "delete from recovery_codes where rp_id = $1 and user_id = $2",
                    "delete from recovery_sets where rp_id = $1 and user_id = $2",
                ],
                false => [
                    "delete from recovery_codes where rp_id = $1 and user_id = $2 and set_id in
                       (select id from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is null)",
                    "delete from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is null",
                ],
            };
            for statement in replaced {
                sqlx::query(statement).bind(rp.as_str()).bind(&user_id).execute(&mut *conn).await?;
            }
            sqlx::query(
                "insert into recovery_sets (rp_id, user_id, id, salt, pepper, created_at, activated_at)
                 values ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(rp.as_str())
            .bind(&user_id)
            .bind(set.id.as_str())
            .bind(&set.salt)
            .bind(set.pepper)
            .bind(event.at.0)
            .bind(confirmed.then_some(event.at.0))
            .execute(&mut *conn)
            .await?;
            for hash in &set.unused {
                sqlx::query("insert into recovery_codes (rp_id, user_id, set_id, hash) values ($1, $2, $3, $4)")
                    .bind(rp.as_str())
                    .bind(&user_id)
                    .bind(set.id.as_str())
                    .bind(hash)
                    .execute(&mut *conn)
                    .await?;
            }
            append!(conn, &event);
            Ok(())
        })
    }

    /// Makes the unconfirmed set the active one, in whose place the old one dies; `Conflict(Row)` where there is none.
    pub async fn confirm_recovery_set(&self, rp: &Id, user_id: &str, event: &Event) -> Result<()> {
        write!(self, (rp, user_id, event) conn => {
            let waiting: Option<String> = sqlx::query_scalar(
                "select id from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is null",
            )
            .bind(rp.as_str())
            .bind(&user_id)
            .fetch_optional(&mut *conn)
            .await?;
            let Some(waiting) = waiting else { return Err(Error::Conflict(Contest::Row)) };
            for statement in [
                "delete from recovery_codes where rp_id = $1 and user_id = $2 and set_id in
                   (select id from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is not null)",
                "delete from recovery_sets where rp_id = $1 and user_id = $2 and activated_at is not null",
            ] {
                sqlx::query(statement).bind(rp.as_str()).bind(&user_id).execute(&mut *conn).await?;
            }
            let done = sqlx::query(
                "update recovery_sets set activated_at = $1 where rp_id = $2 and user_id = $3 and id = $4 and activated_at is null",
            )
            .bind(event.at.0)
            .bind(rp.as_str())
            .bind(&user_id)
            .bind(&waiting)
            .execute(&mut *conn)
            .await?;
            won(done.rows_affected(), Contest::Row)?;
            append!(conn, &event);
            Ok(())
        })
    }
}
