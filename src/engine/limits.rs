//! What keeps guessing and costly work in bounds: throttles between their rows and their rules, and turns for slow hashes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Answered, Caller, Engine, Error, Verdict};
use crate::measure;
use crate::methods::totp;
use crate::model::{Challenge, Factor, Id, Keyed, MethodKind, Outcome, RelyingParty, Timestamp, hex};
use crate::policy::odds::{self, Odds};
use crate::policy::throttle::{self, ENROLMENT, STRANGERS, Stop, Throttle};
use crate::store::{self, DeviceChange, Settlement, Store, ThrottleLane};

/// How long a costly verdict waits for its turn.
const COSTLY_WAIT: Duration = Duration::from_secs(5);
/// How often the last success of a device that has nothing else to write is noted, in seconds.
const NOTED: i64 = 86_400;

/// A lane as it was read: what stands in its row, and its state in the light of the others.
pub(super) struct Lane {
    row: ThrottleLane,
    state: Throttle,
    /// What a wrong verdict costs.
    cost: i64,
    /// Whether any lane counts guesses, so that a success has to be noted whatever its method.
    counting: bool,
    /// The device that becomes known by a success, and how.
    device: Option<(String, DeviceChange)>,
}

/// A method whose guessing pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Which.
    pub method: MethodKind,
    /// When the next verdict may be had; of a hold, when to ask again.
    pub until: Timestamp,
    /// Waiting does not end it.
    pub hold: bool,
}

impl Engine {
    /// Settles a verdict, and counts what came of it: a pause that began, an enrolment that went right or wrong.
    pub(super) fn settle(
        &self,
        store: &Store,
        settlement: Settlement,
    ) -> impl Future<Output = Result<(), store::Error>> + Send {
        let event = settlement.event.as_ref();
        let method = event.and_then(|event| event.method);
        let failed = event.is_some_and(|event| event.outcome == Outcome::Failure);
        let stops = settlement.throttle.as_ref().is_some_and(|lane| lane.paused_until > Some(settlement.at));
        let paused = method.filter(|_| failed && stops);
        let enrolled = match event.map(|event| event.kind) {
            Some("factor.added") => method.map(|method| (method, "right")),
            Some("enrolment.failed") => method.map(|method| (method, "wrong")),
            _ => None,
        };
        let settling = store.settle(settlement);
        async move {
            settling.await?;
            paused.into_iter().for_each(measure::pause);
            enrolled.into_iter().for_each(|(method, outcome)| measure::enrolment(method, outcome));
            Ok(())
        }
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

    /// The name of a device's lane: it says nothing of the device, and is of no use for another user.
    pub(super) fn device_lane(&self, place: &str, rp: &Id, user_id: &str, device: &str) -> String {
        let parts = [place.as_bytes(), rp.as_str().as_bytes(), user_id.as_bytes(), device.as_bytes()];
        hex(&self.vault.keyed_hash("device", &parts)[..16])
    }

    /// The name under which guesses of a browser on our own pages are counted, if it passed before.
    pub fn browser_lane(&self, rp: &RelyingParty, user_id: &str, cookie: &str) -> String {
        self.device_lane("page", &rp.id, user_id, cookie)
    }
}

/// Counts how a proof ended.
pub(super) fn judged(kind: MethodKind, verdict: Result<Verdict, Answered>) -> Result<Verdict, Answered> {
    measure::verification(kind, verdict.as_ref().err().map_or("right", |refused| refused.error.outcome()));
    verdict
}

/// The chances of blind guesses, by the number of authenticator apps.
pub fn odds() -> Vec<Odds> {
    let all = 10_i64.pow(u32::from(totp::DIGITS));
    (1..=throttle::MOST_APPS).map(|apps| odds::odds(apps, totp::ACCEPTED, all)).collect()
}

/// The device that answers: that of our own page's browser, else the one that the relying party named.
pub(super) fn device_of<'a>(caller: &'a Caller, challenge: &'a Challenge) -> Option<&'a str> {
    let own = caller.client.as_ref().and_then(|client| client.device.as_deref());
    own.or(challenge.terms.client.device.as_deref())
}

/// The lane in which guesses of this device are counted: its own where it passed before, else the strangers'.
pub(super) fn lane_of(
    lanes: &[ThrottleLane],
    factors: &[Factor],
    device: Option<&str>,
    now: Timestamp,
) -> store::Result<Lane> {
    let known = |row: &&ThrottleLane| row.seen_at.is_some_and(|seen| throttle::is_known(seen, now));
    let own = device.and_then(|device| lanes.iter().filter(known).find(|row| row.lane == device));
    let mut lane = read(lanes, own.map_or(STRANGERS, |row| &row.lane))?;
    let apps = factors.iter().filter(|f| f.kind == MethodKind::Totp && f.is_active()).count();
    lane.cost = throttle::cost(apps);
    lane.device = device.filter(|_| own.is_none()).map(|device| {
        let crowded = lanes.iter().filter(|row| row.seen_at.is_some()).count() >= throttle::MOST_DEVICES
            && !lanes.iter().any(|row| row.lane == device);
        (device.to_owned(), if crowded { DeviceChange::Instead } else { DeviceChange::New })
    });
    Ok(lane)
}

/// The lane in which first proofs of pending factors are counted.
pub(super) fn enrolment_lane(lanes: &[ThrottleLane]) -> store::Result<Lane> {
    read(lanes, ENROLMENT)
}

fn read(lanes: &[ThrottleLane], name: &str) -> store::Result<Lane> {
    let mut own = (ThrottleLane { lane: name.to_owned(), ..ThrottleLane::default() }, Throttle::default());
    let mut others = Vec::new();
    for row in lanes {
        let state = state(row)?;
        if row.lane == name {
            own = (row.clone(), state);
        } else {
            others.push((row.lane.as_str(), state));
        }
    }
    let (row, state) = own;
    let counting = state.is_counting() || others.iter().any(|(_, other)| other.is_counting());
    // Pauses add up over challenges and enrolments: those of a device or of strangers with enrolments', and enrolments' with strangers'.
    let partner = if name == ENROLMENT { STRANGERS } else { ENROLMENT };
    let state = others.iter().fold(state, |state, (lane, other)| {
        let state = state.beside(other);
        if *lane == partner { state.together(other) } else { state }
    });
    Ok(Lane { row, state, cost: throttle::cost(0), counting, device: None })
}

fn state(row: &ThrottleLane) -> store::Result<Throttle> {
    let state: Throttle = serde_json::from_str(&row.state).map_err(|_| store::Error::Corrupt("throttle_lanes"))?;
    Ok(state.known_since(row.seen_at))
}

/// Methods of which wrong proofs are counted in any lane.
pub(super) fn counted(lanes: &[ThrottleLane]) -> store::Result<Vec<MethodKind>> {
    let states = lanes.iter().map(state).collect::<store::Result<Vec<_>>>()?;
    let all: BTreeSet<_> = states.iter().flat_map(Throttle::counted).collect();
    Ok(all.into_iter().collect())
}

impl Lane {
    /// Refuses early what gets no verdict now.
    pub fn check(&self, kind: MethodKind, now: Timestamp) -> Result<(), Error> {
        match self.stop(kind, now) {
            None => Ok(()),
            Some(Stop::Until(until)) => Err(Error::Paused(until.seconds_after(now))),
            Some(Stop::Hold) => Err(Error::OnHold(throttle::HOLD_WAIT)),
        }
    }

    fn stop(&self, kind: MethodKind, now: Timestamp) -> Option<Stop> {
        self.state.stop(kind, self.cost, now).filter(|_| throttle::applies(kind))
    }

    /// Methods that get no verdict now.
    pub fn paused(&self, now: Timestamp) -> Vec<Pause> {
        let pause = |method| {
            Some(match self.stop(method, now)? {
                Stop::Until(until) => Pause { method, until, hold: false },
                Stop::Hold => Pause { method, until: now.plus_seconds(throttle::HOLD_WAIT), hold: true },
            })
        };
        MethodKind::ALL.into_iter().filter_map(pause).collect()
    }

    /// What a wrong proof is charged with, on the condition that nobody else wrote the lane.
    pub fn wrong(&self, kind: MethodKind, now: Timestamp) -> Option<ThrottleLane> {
        let next = throttle::applies(kind).then(|| self.state.after_wrong(kind, self.cost, now))?;
        Some(self.written(&next, self.row.seen_at, now))
    }

    /// What a right proof of the owner writes. Of a method whose codes are guessed always something, so that it cannot slip past
    /// a pause that began meanwhile.
    pub fn right(&self, kind: MethodKind, now: Timestamp) -> Option<ThrottleLane> {
        let stale = self.row.seen_at.is_some_and(|seen| now >= seen.plus_seconds(NOTED));
        let writes = throttle::applies(kind) || self.counting || stale;
        writes.then(|| self.written(&self.state.after_right(kind, now), self.row.seen_at.map(|_| now), now))
    }

    /// What the first proof of a pending factor writes: always something, so that of two that are judged at once by the same
    /// factors one is judged anew, beside the other (`may_manage`).
    pub fn enrolled(&self, kind: MethodKind, now: Timestamp) -> ThrottleLane {
        match throttle::applies(kind) {
            true => self.written(&self.state.after_enrolled(kind), None, now),
            false if self.row.version == 0 => self.written(&Throttle::default(), None, now),
            false => self.row.clone(),
        }
    }

    /// Which state of its row was read; 0 where there is none.
    pub fn version(&self) -> i64 {
        self.row.version
    }

    /// The device that becomes known by a right proof.
    pub fn device(&self) -> Option<(String, DeviceChange)> {
        self.device.clone()
    }

    fn written(&self, next: &Throttle, seen_at: Option<Timestamp>, now: Timestamp) -> ThrottleLane {
        let state = serde_json::to_string(next).expect("a state is JSON");
        ThrottleLane { state, seen_at, paused_until: next.stopped_until(self.cost, now), ..self.row.clone() }
    }
}
