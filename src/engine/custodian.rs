//! What an operator does with the keys, beside running engines: publish, re-seal, re-wrap, remove. Needs the master key.
//!
//! A new key is published before it is used, and an old one removed only when nothing is left under it: running engines read
//! the keys again every few seconds, and at once when they meet one that they do not know.

use std::sync::Arc;
use std::time::Duration;

use super::OperatorError;
use super::keys::{kept, own_realm, signing_row, wrapped};
use super::session::LIFE;
use super::start::{StartError, open_ring};
use crate::clock::Clock;
use crate::model::{Actor, Event, Moment, Rng, Timestamp};
use crate::store::{self, Contest, RingChange, RingKey, SEALED, SealedRow, SealedTable, SigningKey, Store};
use crate::token::new_signing_key;
use crate::vault::{MasterKey, Purpose, Row, Vault, seal_head};

/// From the publication of a key of the ring to its first use, in seconds: several times what engines take to read it.
const PUBLISHED: i64 = 10;
/// From the first use of a data key to the removal of the one before, in seconds: longer than any request takes.
const SETTLED: i64 = 60;
/// From the publication of a signing key to its first use, in seconds: twice as long as verifiers may keep the key set.
const SIGNING_PUBLISHED: i64 = 600;
/// From the first use of a signing key until the one before is no longer published: no token of it is left by then.
const SIGNING_SETTLED: i64 = LIFE + 300;
/// Rows that are sealed anew in one write.
const STEP: i64 = 50;
/// How often progress is told, in rows.
const TELL: u64 = 1000;
/// Between two looks at the clock while a time is awaited.
const LOOK: Duration = Duration::from_millis(200);

/// A key, as an operator sees it.
pub struct KeyState {
    /// `data`, `pepper`, `hashing` or `signing`.
    pub purpose: String,
    /// Its number, or its `kid`.
    pub id: String,
    /// `next`, `current` or `old`.
    pub state: &'static str,
    /// Its first use, where that was set.
    pub active_from: Option<Timestamp>,
    /// The end of a signing key.
    pub retired_at: Option<Timestamp>,
    /// Values that it seals, or recovery code sets that need it.
    pub uses: Option<i64>,
}

/// What sealing anew came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Values under the new key.
    pub values: u64,
    /// Rows that do not open; they are as they were.
    pub closed: Vec<String>,
}

/// The hands that hold the master key.
pub struct Custodian {
    pub(super) store: Store,
    pub(super) vault: Vault,
    master: MasterKey,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

impl Custodian {
    /// On an open store whose ring this master key opens.
    pub async fn open(
        store: Store,
        master: MasterKey,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Custodian, StartError> {
        Ok(Custodian { vault: open_ring(&store, &master).await?, store, master, clock, rng })
    }

    fn moment(&self) -> Moment<'_> {
        Moment::new(self.clock.now(), &*self.rng)
    }

    /// Every key, oldest first.
    pub async fn keys(&self) -> Result<Vec<KeyState>, OperatorError> {
        let now = self.clock.now();
        let mut keys = Vec::new();
        let ring = self.store.key_ring().await?;
        for key in &ring {
            let is_next = |key: &RingKey| key.active_from.is_some_and(|from| from > now.0);
            let newer = |other: &RingKey| other.purpose == key.purpose && other.id > key.id && !is_next(other);
            let uses = match Purpose::parse(&key.purpose) {
                Some(Purpose::Data) => Some(self.sealed_under(key.id).await?),
                Some(Purpose::Pepper) => Some(self.store.count_recovery_sets(key.id).await?),
                _ => None,
            };
            keys.push(KeyState {
                purpose: key.purpose.clone(),
                id: key.id.to_string(),
                state: if is_next(key) {
                    "next"
                } else if ring.iter().any(newer) {
                    "old"
                } else {
                    "current"
                },
                active_from: key.active_from.map(Timestamp),
                retired_at: None,
                uses,
            });
        }
        let signing = self.store.signing_keys(now).await?;
        let current = signing.iter().filter_map(|key| key.active_at.filter(|from| *from <= now.0)).max();
        keys.extend(signing.into_iter().map(|key| KeyState {
            purpose: "signing".to_owned(),
            state: match key.active_at {
                Some(from) if Some(from) == current => "current",
                Some(from) if from <= now.0 => "old",
                _ => "next",
            },
            active_from: key.active_at.map(Timestamp),
            retired_at: key.retired_at.map(Timestamp),
            uses: None,
            id: key.kid,
        }));
        Ok(keys)
    }

    async fn sealed_under(&self, key: i64) -> Result<i64, store::Error> {
        let mut sealed = 0;
        for table in &SEALED {
            sealed += self.store.count_sealed(table, &seal_head(key)).await?;
        }
        Ok(sealed)
    }

    /// Puts every sealed value under a new data key, or goes on where an earlier run stopped, and removes older keys if so asked.
    /// `tell` gets a line of progress now and then.
    pub async fn rotate_data(&self, remove_old: bool, tell: &(dyn Fn(&str) + Sync)) -> Result<Resealed, OperatorError> {
        let mut all = Resealed::default();
        let data = |ring: Vec<RingKey>| ring.into_iter().filter(|k| k.purpose == Purpose::Data.as_str()).collect();
        let mut keys: Vec<RingKey> = data(self.store.key_ring().await?);
        let unfinished = keys.len() > 1 && {
            all = self.reseal(&keys, tell).await?;
            all.values > 0
        };
        if !(unfinished || remove_old && keys.len() > 1) {
            let id = self.publish(Purpose::Data, "data_key.published").await?;
            tell(&format!("data key {id} is published; it is used in {PUBLISHED} seconds"));
            keys = data(self.store.key_ring().await?);
            all = Resealed::default();
        }
        // Until nothing is found: engines that learnt the key late may still have sealed by the one before.
        loop {
            let more = self.reseal(&keys, tell).await?;
            all = Resealed { values: all.values + more.values, closed: more.closed };
            if more.values == 0 {
                break;
            }
        }
        if remove_old {
            self.remove_old(&keys, &mut all, tell).await?;
        }
        Ok(all)
    }

    async fn remove_old(
        &self,
        keys: &[RingKey],
        all: &mut Resealed,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), OperatorError> {
        let Some((newest, old)) = keys.split_last() else { return Ok(()) };
        let settled = Timestamp(newest.active_from.unwrap_or_default()).plus_seconds(SETTLED);
        self.wait_until(settled, "older keys are removed", tell).await;
        for key in old {
            let last = self.reseal(keys, tell).await?;
            *all = Resealed { values: all.values + last.values, closed: last.closed };
            let remove = Some((key.id, seal_head(key.id)));
            let change = |version| RingChange { version, remove: remove.clone(), ..RingChange::default() };
            match self.change("data_key.removed", change).await {
                Ok(()) => tell(&format!("data key {} is removed", key.id)),
                Err(store::Error::Conflict(Contest::Token)) => {
                    tell(&format!("data key {} was removed by another command", key.id));
                }
                Err(store::Error::Conflict(Contest::Limit)) => {
                    let left = self.sealed_under(key.id).await?;
                    return Err(OperatorError::Refused(format!(
                        "data key {} stays: {left} values under it do not open ({})",
                        key.id,
                        all.closed.join(", ")
                    )));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One pass over everything that the newest key does not seal yet, in small conditional steps.
    async fn reseal(&self, keys: &[RingKey], tell: &(dyn Fn(&str) + Sync)) -> Result<Resealed, OperatorError> {
        let Some(newest) = keys.last() else { return Ok(Resealed::default()) };
        self.wait_until(Timestamp(newest.active_from.unwrap_or_default()), "the new key is used", tell).await;
        self.vault.learn(&self.master, &wrapped(self.store.key_ring().await?).map_err(StartError::from)?);
        let mut all = Resealed::default();
        for table in &SEALED {
            let done = self.reseal_table(table, newest.id, tell).await?;
            all.values += done.values;
            all.closed.extend(done.closed);
        }
        Ok(all)
    }

    async fn reseal_table(
        &self,
        table: &SealedTable,
        key: i64,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<Resealed, OperatorError> {
        let (head, mut behind, mut told) = (seal_head(key), SealedRow::default(), 0);
        let mut all = Resealed::default();
        loop {
            let rows = self.store.stale_rows(table, &head, &behind, STEP).await?;
            let Some(last) = rows.last() else { break };
            behind = last.clone();
            let at = self.moment();
            let mut step = Vec::new();
            for row in rows {
                let place = Row { table: table.name, rp: &row.rp_id, user: &row.user_id, id: &row.id };
                match self.vault.open(place, &row.sealed) {
                    Ok(plain) => {
                        let sealed = self.vault.seal(&at, place, &plain);
                        if !sealed.starts_with(&head) {
                            return Err(OperatorError::Refused(format!("data key {key} does not open")));
                        }
                        step.push((row, sealed));
                    }
                    Err(_) => all.closed.push(format!("{} {}", table.name, row.id)),
                }
            }
            all.values += self.store.replace_sealed(table, &step).await?;
            if all.values / TELL > told {
                told = all.values / TELL;
                tell(&format!("{}: {} sealed anew", table.name, all.values));
            }
        }
        if all.values > 0 {
            tell(&format!("{}: {} sealed anew, all done", table.name, all.values));
        }
        Ok(all)
    }

    /// A new pepper, for the recovery codes that are made from now on. Older codes keep the one that they were made with.
    pub async fn rotate_pepper(&self) -> Result<i64, OperatorError> {
        self.publish(Purpose::Pepper, "pepper.published").await
    }

    async fn publish(&self, purpose: Purpose, what: &'static str) -> Result<i64, OperatorError> {
        loop {
            // The version first: what is read after it is not older.
            let version = self.store.key_ring_version().await?;
            let ring = wrapped(self.store.key_ring().await?).map_err(StartError::from)?;
            // Another may have put the ring under a new master key since this began: nothing is added under the old one.
            Vault::new(&self.master, &ring).map_err(StartError::from)?;
            let at = self.moment();
            let id = ring.iter().map(|key| key.id).max().unwrap_or_default() + 1;
            let key = self.master.new_key(&at, id, purpose, at.now.plus_seconds(PUBLISHED));
            let change = RingChange { version, add: Some(kept(key)), ..RingChange::default() };
            match self.store.change_key_ring(&change, &self.event(&at, what)).await {
                Ok(()) => return Ok(id),
                Err(store::Error::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Puts the ring under another master key, all of it at once. Running engines keep what they have unwrapped.
    pub async fn rotate_master(&self, new: &MasterKey) -> Result<(), OperatorError> {
        loop {
            let version = self.store.key_ring_version().await?;
            let ring = wrapped(self.store.key_ring().await?).map_err(StartError::from)?;
            let at = self.moment();
            let rewrap = self.master.rewrap(&at, new, &ring).map_err(StartError::from)?;
            let rewrap = rewrap.into_iter().map(kept).collect();
            let change = RingChange { version, rewrap, ..RingChange::default() };
            match self.store.change_key_ring(&change, &self.event(&at, "master_key.rotated")).await {
                Err(store::Error::Conflict(_)) => {}
                done => return Ok(done?),
            }
        }
    }

    /// Publishes the next signing key; gives its `kid`, its first use and the time from which the one before is gone.
    pub async fn rotate_signing(&self) -> Result<(String, Timestamp, Timestamp), OperatorError> {
        let at = self.moment();
        let new = new_signing_key();
        let active_at = at.now.plus_seconds(SIGNING_PUBLISHED);
        let others_retire = active_at.plus_seconds(SIGNING_SETTLED);
        let key = SigningKey {
            sealed: self.vault.seal(&at, signing_row(&new.kid), &new.private),
            kid: new.kid,
            active_at: Some(active_at.0),
            retired_at: None,
        };
        match self.store.add_signing_key(&key, others_retire, &self.event(&at, "signing_key.published")).await {
            Ok(()) => Ok((key.kid, active_at, others_retire)),
            Err(store::Error::Conflict(_)) => {
                Err(OperatorError::Refused("a signing key awaits its first use already; see keys list".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn change(&self, what: &'static str, change: impl Fn(i64) -> RingChange) -> Result<(), store::Error> {
        loop {
            let at = self.moment();
            let version = self.store.key_ring_version().await?;
            match self.store.change_key_ring(&change(version), &self.event(&at, what)).await {
                Err(store::Error::Conflict(Contest::Row)) => {}
                done => return done,
            }
        }
    }

    async fn wait_until(&self, time: Timestamp, what: &str, tell: &(dyn Fn(&str) + Sync)) {
        if self.clock.now() < time {
            tell(&format!("{what} at {time}"));
        }
        while self.clock.now() < time {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn event(&self, at: &Moment<'_>, kind: &'static str) -> Event {
        Event::new(at, &own_realm(), kind, Actor::Operator)
    }
}
