//! The audit chain: sealed by SQLite's writer as it commits, else in the background by one engine at a time, read by relying
//! parties, examined by operators.

use std::sync::Arc;

use super::{Caller, Custodian, Engine, Error, OperatorError};
use crate::clock::Clock;
use crate::model::{ChainHead, Id, Moment, Recorded, Rng, Timestamp, hex};
use crate::policy::chain::{self, ERASED, Examiner, Finding};
use crate::store::{self, EventQuery};
use crate::vault::Vault;

/// How old an event must be to be numbered, in seconds: what is committed late by a moment still gets its place in the order of times.
const LAG: i64 = 1;
/// Events that are chained in one write.
const BATCH: usize = 64;
/// How far an event may stand behind younger ones, in seconds, and still be found by its time: far more than any commit takes.
const DISORDER: i64 = 3600;
/// So many events are looked through at once for those of one type.
const STRETCH: i64 = 50_000;
/// Events that are examined at once.
const PAGE: i64 = 1000;

/// Which events a relying party wants.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Only behind this number.
    pub behind: i64,
    /// Only of this type.
    pub kind: Option<String>,
    /// Only of this user.
    pub user_id: Option<String>,
    /// Only from this time on.
    pub after: Option<Timestamp>,
    /// Only before this time.
    pub before: Option<Timestamp>,
}

/// What was found in one chain.
pub struct ChainReport {
    /// Whose.
    pub rp_id: Id,
    /// The relying party's name; `None` for the engine's own chain.
    pub name: Option<String>,
    /// How many events it holds.
    pub events: i64,
    /// Events that have no number yet.
    pub unsealed: usize,
    /// Its last number and hash: what to remember elsewhere as a checkpoint.
    pub head: Option<(i64, String)>,
    /// What is wrong with it; empty where nothing is.
    pub findings: Vec<Finding>,
}

/// What SQLite's writer needs to chain events as it commits them.
pub(super) struct Chainer {
    pub(super) vault: Arc<Vault>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rng: Arc<dyn Rng>,
}

impl store::Chain for Chainer {
    fn extend(&self, head: Option<&ChainHead>, rp: &Id, events: &mut [Recorded]) -> Option<ChainHead> {
        // A forged end is told of by who seals in the background.
        let is_own = head.is_none_or(|head| chain::is_own(&*self.vault, head));
        let at = Moment::new(self.clock.now(), &*self.rng);
        is_own.then(|| chain::extend(&at, &*self.vault, head, rp, events))
    }
}

impl Engine {
    /// Numbers and chains what has been committed and was not chained then; tells how many events. Nothing is done while another
    /// engine does it.
    pub async fn seal_events(&self) -> Result<usize, store::Error> {
        let before = self.clock.now().plus_seconds(-LAG);
        let mut sealed = 0;
        for rp in self.store.unsealed_realms().await? {
            // Each batch begins where the one before ended, since the index still holds what was numbered a moment ago.
            let mut from = Some(Timestamp(i64::MIN));
            while let Some(begin) = from {
                if !self.holds(&self.sealer).await? {
                    break;
                }
                // One whose rows do not read holds up no other.
                let batch = self.seal_batch(&rp, begin, before).await;
                let batch = batch.inspect_err(|error| tracing::error!(%error, %rp, "events are not chained"));
                let (done, last) = batch.unwrap_or_default();
                sealed += done;
                from = last.filter(|_| done == BATCH);
            }
        }
        Ok(sealed)
    }

    /// One write; tells of how many events, and the time of the last. What two sealers do at once is still one chain: the end that was
    /// read must be the end that is replaced.
    async fn seal_batch(
        &self,
        rp: &Id,
        from: Timestamp,
        before: Timestamp,
    ) -> Result<(usize, Option<Timestamp>), store::Error> {
        // In this order, as others add to it meanwhile: the end is never before what was numbered when it was read.
        let highest = self.store.highest_event(rp).await?;
        let head = self.store.chain_head(rp).await?;
        let is_own = head.as_ref().is_none_or(|head| chain::is_own(&*self.vault, head));
        let last = head.as_ref().map_or(0, |head| head.sequence);
        if !is_own || highest > last {
            // To go on from here would hide what was done to it.
            tracing::error!(%rp, "the audit chain's end is forged, or gone: nothing is added to it; run countersign audit verify");
            return Ok((0, None));
        }
        let mut events = self.store.unsealed_events(rp, from, before, BATCH as i64).await?;
        let Some(last) = events.last().map(|event| event.at) else { return Ok((0, None)) };
        let new = chain::extend(&self.moment(), &*self.vault, head.as_ref(), rp, &mut events);
        // Else it was another sealer, or a user was erased meanwhile: the next turn reads anew.
        let stood = store::stood(self.store.seal_events(head.as_ref(), &new, &events).await)?;
        Ok(if stood { (events.len(), Some(last)) } else { (0, None) })
    }

    /// Events of the caller's relying party, in the order of their numbers: up to one more than a page holds, and up to which number
    /// was looked, where that is neither the chain's end nor the last one found.
    pub async fn events(
        &self,
        caller: &Caller,
        filter: EventFilter,
        limit: usize,
    ) -> Result<(Vec<Recorded>, Option<i64>), Error> {
        let rp = &caller.rp.id;
        let behind = match filter.after {
            Some(after) => filter.behind.max(self.last_before(rp, after.plus_seconds(-DISORDER)).await?),
            None => filter.behind,
        };
        let all = EventQuery::behind(behind, limit as i64 + 1);
        let end = match filter.before {
            Some(before) => self.last_before(rp, before.plus_seconds(DISORDER)).await?,
            None => all.up_to,
        };
        // Of a kind that is rare, no longer stretch is looked through at once: no index leads to it.
        let walks = filter.kind.is_some() && filter.user_id.is_none();
        let up_to = if walks { end.min(behind.saturating_add(STRETCH)) } else { end };
        // Read first: what gets its number meanwhile was not looked at.
        let highest = if walks { self.store.highest_event(rp).await? } else { 0 };
        let (after, before) = (filter.after.unwrap_or(all.after), filter.before.unwrap_or(all.before));
        let query = EventQuery { up_to, kind: filter.kind, user_id: filter.user_id, after, before, ..all };
        let events = self.store.sealed_events(rp, &query).await?;
        // An older database in this one's place gives numbers a second time: who read beyond its end would miss what has them now.
        if events.is_empty() && filter.behind > self.store.highest_event(rp).await? {
            return Err(Error::Invalid { param: "cursor", why: "Expected a number that the chain has reached." });
        }
        let is_cut = up_to < end.min(highest) && events.len() <= limit;
        Ok((events, is_cut.then_some(up_to)))
    }

    /// A user's latest events that have their number, newest first.
    pub async fn latest_events(
        &self,
        caller: &Caller,
        user_id: &str,
        kinds: &[&str; 11],
        limit: i64,
    ) -> Result<Vec<Recorded>, Error> {
        Ok(self.store.latest_events(&caller.rp.id, user_id, kinds, limit).await?)
    }

    /// A number up to which every event is older, found by halving: numbers have no gaps and follow time but for a little disorder.
    async fn last_before(&self, rp: &Id, time: Timestamp) -> Result<i64, Error> {
        let (mut low, mut high) = (0, self.store.highest_event(rp).await?);
        while low < high {
            let middle = low + (high - low + 1) / 2;
            match self.store.time_of_event(rp, middle).await? {
                Some(at) if at < time => low = middle,
                _ => high = middle - 1,
            }
        }
        Ok(low)
    }
}

impl Custodian {
    /// Reads every chain, or one, from its start. A checkpoint is a number and hash that an earlier report gave.
    pub async fn verify_audit(
        &self,
        rp: Option<&str>,
        checkpoint: Option<(i64, Vec<u8>)>,
    ) -> Result<Vec<ChainReport>, OperatorError> {
        let parties = self.store.relying_parties().await?;
        let named = |id: &Id| parties.iter().find(|p| p.id == *id).map(|p| p.name.clone());
        let mut reports = Vec::new();
        for id in self.store.chains().await? {
            let name = named(&id);
            if rp.is_none_or(|wanted| wanted == id.as_str() || Some(wanted) == name.as_deref()) {
                reports.push(self.examine(id, name, checkpoint.clone()).await?);
            }
        }
        if rp.is_some() && reports.is_empty() {
            return Err(OperatorError::Unknown("relying party"));
        }
        Ok(reports)
    }

    async fn examine(
        &self,
        rp_id: Id,
        name: Option<String>,
        checkpoint: Option<(i64, Vec<u8>)>,
    ) -> Result<ChainReport, OperatorError> {
        let highest = self.store.highest_event(&rp_id).await?;
        let head = self.store.chain_head(&rp_id).await?;
        let mut examiner = Examiner::new(checkpoint);
        let mut query = EventQuery::behind(0, PAGE);
        let (mut events, last) = (0, head.as_ref().map_or(highest, |head| head.sequence));
        loop {
            let page = self.store.sealed_events(&rp_id, &query).await?;
            // What was sealed since the end was read is judged the next time.
            for event in page.iter().filter(|e| e.link.as_ref().is_some_and(|l| l.sequence <= last)) {
                examiner.see(event);
                events += 1;
            }
            let Some(link) = page.last().and_then(|e| e.link.as_ref()).filter(|l| l.sequence < last) else { break };
            query.behind = link.sequence;
        }
        // An erasure that happened while the chain was read is told by an event that may have no number, or a high one.
        let young = self.store.young_events(&rp_id).await?;
        query.behind = last;
        query.kind = Some(ERASED.to_owned());
        let newer = self.store.sealed_events(&rp_id, &query).await?;
        let told = young.iter().filter(|(kind, _)| kind == ERASED).filter_map(|(_, user)| user.clone());
        let erasures: Vec<_> = told.chain(newer.into_iter().filter_map(|e| e.user_id)).collect();
        let findings = examiner.end(&self.vault, head.as_ref(), highest, &erasures);
        let head = head.map(|head| (head.sequence, hex(&head.hash)));
        Ok(ChainReport { rp_id, name, events, unsealed: young.len(), head, findings })
    }
}
