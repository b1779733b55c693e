//! What a settlement is put together from: conditional writes of one row each, which draw on the same numbered values.

use std::borrow::Cow;
use std::collections::BTreeSet;

use sqlx::Arguments;
use sqlx::postgres::PgArguments;

use super::settlement::{ChallengeChange, FactorChange, SessionChange, Settlement};
use super::{Contest, DeviceChange, Error, Result, text};
use crate::model::{Challenge, Id};

/// One conditional write of one row, and what is lost where it touches none.
pub(super) type Part = (Contest, &'static str);

/// Declares each part, and [`PARTS`] with all of them in this order.
macro_rules! parts {
    ($($(#[$about:meta])* $name:ident: $lost:ident, $sql:literal;)*) => {
        $($(#[$about])* const $name: Part = (Contest::$lost, $sql);)*

        /// Every part; what tells of the others is the last.
        pub(super) const PARTS: &[Part] = &[$($name),*];
    };
}

parts! {
    THROTTLE_NEW: Throttle,
    "insert into throttle_lanes (rp_id, user_id, lane, version, state, seen_at, paused_until)
     values ($1, $2, $4, $5 + 1, $6, $7, $43) on conflict do nothing";
    THROTTLE: Throttle,
    "update throttle_lanes set version = $5 + 1, state = $6, seen_at = $7, paused_until = $43
     where rp_id = $1 and user_id = $2 and lane = $4 and version = $5";
    DEVICE_NEW: Throttle,
    "insert into throttle_lanes (rp_id, user_id, lane, version, state, seen_at) values ($1, $2, $8, 1, '{}', $3)
     on conflict (rp_id, user_id, lane) do update set version = throttle_lanes.version + 1, seen_at = excluded.seen_at";
    DEVICE_INSTEAD: Throttle,
    "update throttle_lanes set lane = $8, version = version + 1, state = '{}', seen_at = $3, paused_until = null
     where rp_id = $1 and user_id = $2 and (lane, version) = (
       select lane, version from throttle_lanes where rp_id = $1 and user_id = $2 and seen_at is not null
       order by seen_at, lane limit 1)";
    AWAITED: Challenge,
    "update challenges set expires_at = expires_at
     where rp_id = $1 and user_id = $2 and id = $9 and status = 'pending' and expires_at > $3";
    CHARGE: Challenge,
    "update challenges set attempts_left = $10 - 1, status = case when $10 <= 1 then 'denied' else status end
     where rp_id = $1 and user_id = $2 and id = $9 and status = 'pending' and attempts_left = $10 and expires_at > $3";
    APPROVE: Challenge,
    "update challenges set status = 'approved', proof = $11, code_hash = $12, code_expires_at = $13, exchanged_at = $14
     where rp_id = $1 and user_id = $2 and id = $9 and status = 'pending' and attempts_left > 0 and expires_at > $3";
    OPEN: Row,
    "insert into challenges (rp_id, user_id, id, terms, status, attempts_left, created_at, expires_at, link_hash, link_opened_at,
       browser_hash, client_token_hash)
     values ($1, $2, $9, $15, 'pending', $10, $3, $16, $44, $45, $46, $47)";
    EXCHANGE: Token,
    "update challenges set exchanged_at = $3
     where rp_id = $1 and user_id = $2 and id = $9 and status = 'approved' and exchanged_at is null
       and code_hash = $12 and code_expires_at > $3";
    BURN: Prompt,
    "delete from prompts where rp_id = $1 and user_id = $2 and owner_id = $17 and method = $18 and id = $19";
    AWAIT: Row,
    "insert into prompts (rp_id, user_id, owner_id, method, id, factor_id, sealed, sends, sent_at, expires_at)
     values ($1, $2, $17, $18, $19, $48, $49, $50, $3, $51)
     on conflict (rp_id, user_id, owner_id, method) do update set
     id = excluded.id, factor_id = excluded.factor_id, sealed = excluded.sealed, sends = excluded.sends,
     sent_at = excluded.sent_at, expires_at = excluded.expires_at";
    STEP: Factor,
    "update factors set last_step = $21, last_used_at = $3
     where rp_id = $1 and user_id = $2 and id = $20 and last_step < $21 and activated_at is not null";
    CREDENTIAL: Factor,
    "update factors set sealed = $23, details = $24, version = $22 + 1, last_used_at = $3
     where rp_id = $1 and user_id = $2 and id = $20 and version = $22 and activated_at is not null";
    USED: Factor,
    "update factors set last_used_at = $3 where rp_id = $1 and user_id = $2 and id = $20 and activated_at is not null";
    RECOVERY_CODE: RecoveryCode,
    "update recovery_codes set used_at = $3
     where rp_id = $1 and user_id = $2 and set_id = $20 and hash = $23 and used_at is null";
    ACTIVATE: Factor,
    "update factors set activated_at = $3, details = $24, sealed = coalesce($23, sealed), credential_id = $25,
       last_step = $21, version = version + 1
     where rp_id = $1 and user_id = $2 and id = $20 and activated_at is null and expires_at > $3 and name <> ' ' || id
       and not exists (select 1 from factors h where h.rp_id = $1 and h.credential_id = $25)";
    HELD: Factor,
    "update factors set version = version
     where rp_id = $1 and user_id = $2 and id = $20 and activated_at is not null";
    PENDING: Factor,
    "update factors set version = version
     where rp_id = $1 and user_id = $2 and id = $20 and activated_at is null and expires_at > $3";
    ADD: Session,
    "update sessions set added_at = $3
     where rp_id = $1 and user_id = $2 and id = $26 and added_at is null and ended_at is null and expires_at > $3";
    STAND: Session,
    "update sessions set expires_at = expires_at
     where rp_id = $1 and user_id = $2 and id = $26 and ended_at is null and expires_at > $3";
    END: Session,
    "update sessions set ended_at = $3
     where rp_id = $1 and user_id = $2 and id = $26 and ended_at is null and expires_at > $3";
    SESSION: Row,
    "insert into sessions (rp_id, user_id, id, token_hash, granted, factor_id, created_at, expires_at)
     values ($1, $2, $27, $28, $29, $30, $3, $31)";
    /// With the challenge that was made and answered in the same call.
    SESSION_AT_ONCE: Row,
    "insert into sessions (rp_id, user_id, id, token_hash, granted, factor_id, created_at, expires_at, terms, proof, attempts_left,
       answer_by)
     values ($1, $2, $27, $28, $29, $30, $3, $31, $15, $11, $10, $16)";
    /// The person proved in this browser; whoever holds the visit's client token may be somebody else, so that ends.
    VISIT: Visit,
    "update portal_sessions set session_id = $27, client_token_hash = $53
     where rp_id = $1 and user_id = $2 and id = $52";
    EVENT: Row,
    "insert into events (rp_id, id, at, kind, actor, user_id, method, factor_id, challenge_id, session_id, outcome, reason, client, request_id)
     values ($1, $32, $3, $33, $34, $2, $35, $36, $37, $38, $39, $40, $41, $42)";
}

impl Settlement {
    /// What it writes, in order.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::with_capacity(6);
        parts.extend(self.throttle.as_ref().map(|t| if t.version == 0 { THROTTLE_NEW } else { THROTTLE }));
        parts.extend(self.device.as_ref().map(|(_, change)| match change {
            DeviceChange::New => DEVICE_NEW,
            DeviceChange::Instead => DEVICE_INSTEAD,
        }));
        parts.extend(match self.challenge {
            ChallengeChange::None => None,
            ChallengeChange::Await(_) => Some(AWAITED),
            ChallengeChange::Charge(..) => Some(CHARGE),
            ChallengeChange::Approve(..) => Some(APPROVE),
            ChallengeChange::Open(_) => Some(OPEN),
            ChallengeChange::Exchange(..) => Some(EXCHANGE),
        });
        parts.extend(self.prompt.as_ref().map(|_| BURN));
        parts.extend(self.awaited.as_ref().map(|_| AWAIT));
        parts.extend(self.factor.as_ref().map(|change| match change {
            FactorChange::Step(..) => STEP,
            FactorChange::Credential { .. } => CREDENTIAL,
            FactorChange::Used(_) => USED,
            FactorChange::RecoveryCode(..) => RECOVERY_CODE,
            FactorChange::Activate(_) => ACTIVATE,
            FactorChange::Held(_) => HELD,
            FactorChange::Pending(_) => PENDING,
        }));
        parts.extend(self.earlier.as_ref().map(|change| match change {
            SessionChange::Add(_) => ADD,
            SessionChange::Stand(_) => STAND,
            SessionChange::End(_) => END,
        }));
        parts.extend(self.session.as_ref().map(|new| if new.challenge.is_some() { SESSION_AT_ONCE } else { SESSION }));
        parts.extend(self.visit.as_ref().map(|_| VISIT));
        parts.extend(self.event.as_ref().map(|_| EVENT));
        parts
    }
}

/// One of the numbered values, borrowed from the settlement where that holds it as it is written.
pub(super) enum Value<'s> {
    Text(Option<Cow<'s, str>>),
    Number(Option<i64>),
    Bytes(Option<&'s [u8]>),
}

impl Value<'_> {
    /// Adds it to what a statement on PostgreSQL draws on.
    pub(super) fn add_to(&self, arguments: &mut PgArguments) -> Result<()> {
        let added = match self {
            Value::Text(text) => arguments.add(text.as_deref()),
            Value::Number(number) => arguments.add(number),
            Value::Bytes(bytes) => arguments.add(bytes),
        };
        added.map_err(unencodable)
    }
}

/// How many values a settlement has.
pub(super) const VALUES: usize = 53;

impl Settlement {
    /// The values that its parts draw on, the first as `$1`. What no part of it uses is null.
    pub(super) fn values(&self) -> [Value<'_>; VALUES] {
        use Value::{Bytes, Number, Text};
        let throttle = self.throttle.as_ref();
        let challenge = OfChallenge::of(self);
        let code = challenge.code;
        let (factor, step, version, bytes, details, credential) = match &self.factor {
            None => (None, None, None, None, None, None),
            Some(FactorChange::Step(id, step)) => (Some(id), Some(*step), None, None, None, None),
            Some(FactorChange::Credential { id, version, sealed, details }) => {
                (Some(id), None, Some(*version), Some(sealed.as_slice()), Some(text(details)), None)
            }
            Some(FactorChange::Used(id) | FactorChange::Held(id) | FactorChange::Pending(id)) => {
                (Some(id), None, None, None, None, None)
            }
            Some(FactorChange::RecoveryCode(set, hash)) => (Some(set), None, None, Some(hash.as_slice()), None, None),
            Some(FactorChange::Activate(a)) => {
                let details = Some(text(&a.details));
                (Some(&a.id), Some(a.last_step), None, a.sealed.as_deref(), details, a.credential_id.as_deref())
            }
        };
        let earlier = self.earlier.as_ref().map(|change| match change {
            SessionChange::Add(id) | SessionChange::Stand(id) | SessionChange::End(id) => id,
        });
        let (session, event, awaited) = (self.session.as_ref(), self.event.as_ref(), self.awaited.as_ref());
        let burnt = self.prompt.as_ref().map(|(owner, method, id)| (owner, *method, id));
        let prompt = burnt.or(awaited.map(|p| (&p.owner_id, p.method, &p.id)));
        let opened = challenge.opened;
        fn held(text: Option<&str>) -> Value<'_> {
            Text(text.map(Cow::Borrowed))
        }
        fn id(id: Option<&Id>) -> Value<'_> {
            held(id.map(Id::as_str))
        }
        let made = |text: Option<String>| Text(text.map(Cow::Owned));
        [
            id(Some(&self.rp_id)), // $1
            held(Some(&self.user_id)),
            Number(Some(self.at.0)),
            held(throttle.map(|t| t.lane.as_str())), // $4
            Number(throttle.map(|t| t.version)),
            held(throttle.map(|t| t.state.as_str())),
            Number(throttle.and_then(|t| t.seen_at).map(|t| t.0)),
            held(self.device.as_ref().map(|(lane, _)| lane.as_str())),
            id(challenge.id), // $9
            Number(challenge.attempts),
            made(challenge.proof),
            Bytes(code),
            Number(challenge.code_end),
            Number(session.map(|_| self.at.0)),
            made(challenge.terms), // $15
            Number(challenge.end),
            id(prompt.map(|(owner, ..)| owner)), // $17
            held(prompt.map(|(_, method, _)| method.as_str())),
            id(prompt.map(|(.., id)| id)),
            id(factor), // $20
            Number(step),
            Number(version),
            Bytes(bytes),
            made(details),
            held(credential), // $25
            id(earlier),
            id(session.map(|n| &n.session.id)), // $27
            Bytes(session.map(|n| n.token_hash.as_slice())),
            made(session.map(|n| text(&n.session.grant))),
            id(session.and_then(|n| n.session.factor_id.as_ref())),
            Number(session.map(|n| n.session.expires_at.0)), // $31
            id(event.map(|e| &e.id)),
            held(event.map(|e| e.kind)),
            held(event.map(|e| e.actor.as_str())),
            held(event.and_then(|e| e.method).map(|m| m.as_str())), // $35
            id(event.and_then(|e| e.factor_id.as_ref())),
            id(event.and_then(|e| e.challenge_id.as_ref())),
            id(event.and_then(|e| e.session_id.as_ref())),
            held(event.map(|e| e.outcome.as_str())),
            held(event.and_then(|e| e.reason)), // $40
            made(event.and_then(|e| e.source()).as_ref().map(text)),
            held(event.and_then(|e| e.request_id.as_deref())),
            Number(throttle.and_then(|t| t.paused_until).map(|t| t.0)), // $43
            Bytes(opened.and_then(|c| c.link_hash.as_deref())),
            Number(opened.and_then(|c| c.link_opened_at).map(|t| t.0)), // $45
            Bytes(opened.and_then(|c| c.browser_hash.as_deref())),
            Bytes(opened.and_then(|c| c.client_token_hash.as_deref())),
            id(awaited.and_then(|p| p.factor_id.as_ref())),
            Bytes(awaited.map(|p| p.sealed.as_slice())),
            Number(awaited.map(|p| p.sends)), // $50
            Number(awaited.map(|p| p.expires_at.0)),
            id(self.visit.as_ref()),
            Bytes(self.visit.as_ref().map(|_| &[][..])),
        ]
    }
}

/// The values that come from what happens to the challenge.
#[derive(Default)]
struct OfChallenge<'s> {
    id: Option<&'s Id>,
    attempts: Option<i64>,
    proof: Option<String>,
    code: Option<&'s [u8]>,
    code_end: Option<i64>,
    terms: Option<String>,
    end: Option<i64>,
    opened: Option<&'s Challenge>,
}

impl OfChallenge<'_> {
    fn of(settlement: &Settlement) -> OfChallenge<'_> {
        let nothing = OfChallenge::default();
        fn made(c: &Challenge) -> OfChallenge<'_> {
            OfChallenge {
                attempts: Some(c.attempts_left),
                terms: Some(text(&c.terms)),
                end: Some(c.expires_at.0),
                proof: c.proof.as_ref().map(text),
                ..OfChallenge::default()
            }
        }
        match &settlement.challenge {
            ChallengeChange::None => {
                settlement.session.as_ref().and_then(|new| new.challenge.as_deref()).map_or(nothing, made)
            }
            ChallengeChange::Await(id) => OfChallenge { id: Some(id), ..nothing },
            ChallengeChange::Charge(id, left) => OfChallenge { id: Some(id), attempts: Some(*left), ..nothing },
            ChallengeChange::Approve(id, proof, code) => OfChallenge {
                id: Some(id),
                proof: Some(text(proof)),
                code: code.as_ref().map(|(hash, _)| hash.as_slice()),
                code_end: code.as_ref().map(|(_, end)| end.0),
                ..nothing
            },
            ChallengeChange::Open(c) => OfChallenge { id: Some(&c.id), opened: Some(c), ..made(c) },
            ChallengeChange::Exchange(id, code) => OfChallenge { id: Some(id), code: Some(code), ..nothing },
        }
    }
}

pub(super) fn unencodable(error: sqlx::error::BoxDynError) -> Error {
    Error::Unavailable(error.to_string())
}

/// Which parts a settlement has: their places among [`PARTS`], in order.
pub(super) fn places(settlement: &Settlement) -> impl Iterator<Item = usize> {
    let place = |part: Part| PARTS.iter().position(|known| known.1 == part.1).expect("every part is known");
    settlement.parts().into_iter().map(place)
}

/// The same as bits.
pub(super) fn bits(settlement: &Settlement) -> i64 {
    places(settlement).map(|place| 1 << place).sum()
}

/// Which of the numbered values a part draws on.
pub(super) fn draws_on((_, sql): &Part) -> BTreeSet<usize> {
    let number = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().expect("every value is numbered")
    };
    sql.split('$').skip(1).map(number).collect()
}
