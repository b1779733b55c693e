//! What keeps guessing and costly work in bounds: throttles between their rows and their rules, and turns for slow hashes.

use std::sync::Arc;
use std::time::Duration;

use super::{Answered, Engine, Error, Verdict};
use crate::measure;
use crate::model::{MethodKind, Timestamp};
use crate::policy::throttle::{self, Throttle};
use crate::store::{self, Dossier, Settlement, ThrottleChange, ThrottleState};

/// How long a costly verdict waits for its turn.
const COSTLY_WAIT: Duration = Duration::from_secs(5);

impl Engine {
    /// Settles a verdict, and counts what came of it: a pause that began, an enrolment that went right or wrong.
    pub(super) async fn settle(&self, settlement: Settlement) -> Result<(), store::Error> {
        let paused = settlement.throttle.as_ref().filter(|t| t.state.paused_until.is_some()).map(|t| t.method);
        let enrolled = match settlement.event.kind {
            "factor.added" => settlement.event.method.map(|method| (method, "right")),
            "enrolment.failed" => settlement.event.method.map(|method| (method, "wrong")),
            _ => None,
        };
        self.store.settle(settlement).await?;
        paused.into_iter().for_each(measure::pause);
        enrolled.into_iter().for_each(|(method, outcome)| measure::enrolment(method, outcome));
        Ok(())
    }

    /// Runs something costly off the threads that serve requests, a bounded number at once.
    pub(super) async fn costly<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let turn = tokio::time::timeout(COSTLY_WAIT, Arc::clone(&self.costly).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Error::Busy(5)) };
        let done = tokio::task::spawn_blocking(move || {
            let value = work();
            drop(turn);
            value
        });
        done.await.map_err(|_| Error::Store(store::Error::Unavailable("a worker thread stopped".to_owned())))
    }
}

/// Counts how a proof ended.
pub(super) fn counted(kind: MethodKind, verdict: Result<Verdict, Answered>) -> Result<Verdict, Answered> {
    measure::verification(kind, verdict.as_ref().err().map_or("right", |refused| refused.error.outcome()));
    verdict
}

/// The throttle of a method that can be guessed; untouched where it was never charged.
pub(super) fn throttle_of(dossier: &Dossier, kind: MethodKind) -> Option<Throttle> {
    let charged = || dossier.throttles.iter().find(|(k, _)| *k == kind).map(|(_, state)| from_row(state.clone()));
    throttle::applies(kind).then(|| charged().unwrap_or_default())
}

/// Methods whose guessing pauses now.
pub(super) fn paused(dossier: &Dossier, now: Timestamp) -> Vec<(MethodKind, Timestamp)> {
    let paused = |(kind, state): &(MethodKind, ThrottleState)| Some((*kind, from_row(state.clone()).paused(now)?));
    dossier.throttles.iter().filter_map(paused).collect()
}

/// The throttle's next state, to be written on the condition that nobody else wrote it.
pub(super) fn change(
    method: MethodKind,
    throttle: Option<&Throttle>,
    next: impl FnOnce(&Throttle) -> Throttle,
) -> Option<ThrottleChange> {
    throttle.map(|t| ThrottleChange { method, state: to_row(next(t)) })
}

pub(super) fn from_row(row: ThrottleState) -> Throttle {
    Throttle {
        version: row.version,
        wrong: row.wrong,
        enrolment_wrong: row.enrolment_wrong,
        paused_until: row.paused_until,
    }
}

pub(super) fn to_row(state: Throttle) -> ThrottleState {
    ThrottleState {
        version: state.version,
        wrong: state.wrong,
        enrolment_wrong: state.enrolment_wrong,
        paused_until: state.paused_until,
    }
}
