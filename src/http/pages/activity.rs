//! What happened of late, as the person it happened to is told: nothing that a relying party's event list does not hold, in words.

use askama::Template;
use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;

use super::portal::AtPortal;
use super::screen::{Shell, show};
use super::words::When;
use crate::http::App;
use crate::model::{MethodKind, Outcome, Recorded, Source, Timestamp};

/// So many are shown.
const SHOWN: i64 = 20;
/// What a person is told of: not every event is of the person's concern.
const TOLD: [&str; 11] = [
    "verification.succeeded",
    "verification.failed",
    "factor.added",
    "factor.removed",
    "factor.renamed",
    "message.sent",
    "recovery_codes.created",
    "recovery_codes.confirmed",
    "session.all_revoked",
    "user.unlocked",
    "user.reset",
];

/// Routes below `/portal/{id}`.
pub fn router() -> Router<App> {
    Router::new().route("/portal/{id}/activity", get(activity))
}

/// The list.
#[derive(Clone, Template)]
#[template(path = "activity.html")]
pub struct ActivityPage {
    pub shell: Shell,
    pub base: String,
    pub entries: Vec<Entry>,
}

/// One line of it.
#[derive(Clone)]
pub struct Entry {
    /// What happened.
    pub what: String,
    /// Whether something was refused.
    pub refused: bool,
    /// When; the day, and the moment.
    pub day: String,
    pub when: When,
    /// From which address, if that is known and may be.
    pub from: Option<String>,
}

async fn activity(visit: AtPortal) -> Result<Response, Response> {
    visit.in_time()?;
    let engine = &visit.app.engine;
    let latest = engine.latest_events(&visit.caller, &visit.subject.user_id, &TOLD, SHOWN).await;
    let told = latest.map_err(|error| visit.fault(error))?;
    // Whoever has the password alone need not learn where from the person comes.
    let is_proven = engine.is_proven(&visit.caller, &visit.subject).await.map_err(|error| visit.fault(error))?;
    let entry = |event: &Recorded| {
        let client = event.client.as_deref().filter(|_| is_proven);
        let address = client.and_then(|text| serde_json::from_str::<Source<'_>>(text).ok());
        Some(Entry {
            what: what(event, visit.party())?,
            refused: event.outcome == Outcome::Failure.as_str(),
            day: super::words::day(event.at),
            when: When::new(event.at, visit.now),
            from: address.and_then(|source| source.ip.map(|ip| ip.into_owned())),
        })
    };
    let page = ActivityPage {
        shell: Shell::new(visit.party(), "Recent activity"),
        base: visit.path(""),
        entries: told.iter().filter_map(entry).collect(),
    };
    Ok(show(StatusCode::OK, &page))
}

/// An event in words; `None` for what nobody is told of.
fn what(event: &Recorded, app: &str) -> Option<String> {
    let method = event.method.as_deref().and_then(MethodKind::parse);
    let (name, proof) = match method {
        Some(MethodKind::Webauthn) => ("Passkey or security key", "a passkey or security key"),
        Some(MethodKind::Totp) => ("Authenticator app", "a code from an authenticator app"),
        Some(MethodKind::Sms) => ("Phone", "a code by text message"),
        Some(MethodKind::RecoveryCode) => ("Recovery code", "a recovery code"),
        None => ("Method", "a second step"),
    };
    Some(match event.kind.as_str() {
        "verification.succeeded" => format!("Confirmed with {proof}"),
        "verification.failed" => format!("Tried with {proof}"),
        "factor.added" => format!("{name} added"),
        "factor.removed" => format!("{name} removed"),
        "factor.renamed" => format!("{name} renamed"),
        "message.sent" => "Code sent by text message".to_owned(),
        "recovery_codes.created" => "New recovery codes made".to_owned(),
        "recovery_codes.confirmed" => "New recovery codes saved".to_owned(),
        "session.all_revoked" => "All confirmations ended".to_owned(),
        "user.unlocked" => format!("A pause was ended by {app}"),
        "user.reset" => format!("All methods were removed by {app}"),
        _ => return None,
    })
}

/// For the gallery, as of this moment.
pub fn examples(shell: impl Fn(&str) -> Shell, now: Timestamp) -> [(String, Response); 2] {
    let entry = |what: &str, refused, ago: i64| {
        let at = now.plus_seconds(-ago);
        let (day, when) = (super::words::day(at), When::new(at, now));
        Entry { what: what.to_owned(), refused, day, when, from: Some("203.0.113.7".to_owned()) }
    };
    let page = |name: &str, entries| {
        let page = ActivityPage { shell: shell("Recent activity"), base: "#".to_owned(), entries };
        (name.to_owned(), show(StatusCode::OK, &page))
    };
    let some = vec![
        entry("Confirmed with a code from an authenticator app", false, 240),
        entry("Tried with a code from an authenticator app", true, 300),
        entry("Passkey or security key added", false, 90_000),
    ];
    [page("activity", some), page("activity-none", Vec::new())]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::SystemRng;
    use crate::model::{Actor, EVENT_TYPES, Event, Id, Moment};

    /// Whatever a person is told of is an event that there is, and has words.
    #[test]
    fn every_told_event_is_one_of_ours() {
        let has_words = |kind: &&&str| {
            let event = Recorded { kind: kind.to_string(), ..blank() };
            what(&event, "Harbour").is_some()
        };
        let told: BTreeSet<_> = EVENT_TYPES.iter().filter(has_words).collect();
        assert_eq!(told, TOLD.iter().collect());
        let event = Recorded { kind: "factor.added".to_owned(), method: Some("totp".to_owned()), ..blank() };
        assert_eq!(what(&event, "Harbour").as_deref(), Some("Authenticator app added"));
    }

    fn blank() -> Recorded {
        let at = Moment::new(Timestamp(0), &SystemRng);
        Recorded::from(&Event::new(&at, &Id::stored("rp_1".to_owned()), "", Actor::User))
    }
}
