//! From a challenge and what the person holds to the view of its page. Pure: nothing is asked for here.

use super::challenge::Chosen;
use super::screen::Shell;
use super::views::{Ceremony, ChallengePage, Choice, SentCode, Way};
use super::visit::Visit;
use super::words::{self, When};
use crate::engine::{self, Offer, OnPage, UserView};
use crate::model::{Challenge, Details, Factor, Id, MethodKind, Prompt, RecoveryStatus, Timestamp, WebauthnDetails};

/// Texts of one challenge within ten minutes.
const TEXTS: i64 = 3;

/// The path of the page with a way chosen.
pub fn here(base: &str, kind: MethodKind, factor: Option<&Id>) -> String {
    let factor = factor.map(|id| format!("&factor={id}")).unwrap_or_default();
    format!("{base}?method={}{factor}", kind.as_str())
}

/// The page of an open challenge.
pub fn challenge(visit: &Visit<Challenge>, chosen: &Chosen, shown: &OnPage) -> ChallengePage {
    let OnPage { offers, user: view, sent } = shown;
    let (challenge, party) = (&visit.subject, visit.party());
    let base = visit.path("");
    let offer = pick(offers, chosen, visit.usual);
    ChallengePage {
        shell: Shell::new(party, "Confirm it's you"),
        here: offer.map_or_else(|| base.clone(), |o| here(&base, o.kind, phone(o))),
        guard: visit.guard.clone(),
        why: match challenge.terms.action == engine::DEFAULT_ACTION && challenge.terms.display.label.is_none() {
            true => format!("You're about to sign in to {party}."),
            false => format!("You're about to {} in {party}.", engine::purpose(&challenge.terms)),
        },
        details: challenge.terms.display.details.clone(),
        who: words::masked(&view.user),
        visit: challenge.terms.portal.as_ref().map(|portal| format!("/portal/{}", portal.id)),
        way: offer.map_or_else(|| set_up(visit, view), |offer| way(visit, offer, offers, &view.factors, sent.as_ref())),
        others: others(visit, offer, offers, view),
        notice: None,
        typed: String::new(),
        ends: When::new(challenge.expires_at, visit.now),
    }
}

/// What was chosen, else what was last right in this browser, else the strongest; neither of these while it is paused. A recovery
/// code is for whoever chooses it: where all else is paused, that is what the page says.
fn pick<'a>(offers: &'a [Offer], chosen: &Chosen, usual: Option<MethodKind>) -> Option<&'a Offer> {
    let suits = |o: &&Offer| {
        Some(o.kind) == chosen.kind && (chosen.factor.is_none() || phone(o).is_none() || o.factor_id == chosen.factor)
    };
    let mut usable = offers.iter().filter(|o| o.pause.is_none());
    let by_habit = usable.clone().find(|o| Some(o.kind) == usual);
    let strongest = || usable.find(|o| o.kind != MethodKind::RecoveryCode);
    offers.iter().find(suits).or(by_habit).or_else(strongest).or(offers.first())
}

/// Only among phones does it matter which.
fn phone(offer: &Offer) -> Option<&Id> {
    offer.factor_id.as_ref().filter(|_| offer.kind == MethodKind::Sms)
}

fn way(visit: &Visit<Challenge>, offer: &Offer, offers: &[Offer], factors: &[Factor], sent: Option<&Prompt>) -> Way {
    match offer.pause {
        Some(pause) if pause.hold => return Way::OnHold(visit.caller.request_id.clone()),
        Some(pause) => return Way::Paused(When::new(pause.until, visit.now)),
        None => {}
    }
    match offer.kind {
        MethodKind::Webauthn => Way::Passkey(Ceremony {
            kind: "get",
            state: "ready",
            base: visit.path(""),
            guard: visit.guard.clone(),
            host: visit.caller.rp.host.clone(),
            key_only: keys_only(offers, factors),
            saved_in: saved_in(offers),
        }),
        MethodKind::Totp => Way::App(names(offers, MethodKind::Totp)),
        MethodKind::Sms => {
            let sent = sent.filter(|p| p.factor_id == offer.factor_id);
            let factor = offer.factor_id.as_ref().map(Id::to_string).unwrap_or_default();
            Way::Text(factor, last_digits(offer.hint.as_deref()), sent.map(|p| sent_code(p, visit.now)))
        }
        MethodKind::RecoveryCode => Way::RecoveryCode,
    }
}

fn set_up(visit: &Visit<Challenge>, view: &UserView) -> Way {
    let challenge = &visit.subject;
    if !challenge.terms.enrol {
        return Way::Nothing;
    }
    let engine = &visit.app.engine;
    let weak = |f: &&Factor| f.is_active() && !engine.lacks_gateway(f, &challenge.terms, visit.now);
    let held = view.factors.iter().find(weak).map(|f| f.kind.default_name());
    words::set_up(&engine.missing(&challenge.terms), held)
}

/// A text that was sent, as the page counts.
pub fn sent_code(prompt: &Prompt, now: Timestamp) -> SentCode {
    let resend = engine::resend_after(prompt);
    SentCode {
        resend: (now < resend).then(|| When::new(resend, now)),
        more: (TEXTS - prompt.sends).max(0),
        expired: false,
    }
}

/// The last two digits of a masked number.
pub fn last_digits(masked: Option<&str>) -> String {
    masked.unwrap_or_default().chars().filter(char::is_ascii_digit).collect()
}

fn others(visit: &Visit<Challenge>, chosen: Option<&Offer>, offers: &[Offer], view: &UserView) -> Vec<Choice> {
    let base = visit.path("");
    let mut choices: Vec<Choice> = Vec::new();
    let mut seen = Vec::new();
    for offer in offers {
        let same = (offer.kind, phone(offer));
        if chosen.map(|c| (c.kind, phone(c))) == Some(same) || seen.contains(&same) {
            continue;
        }
        seen.push(same);
        let paused = offer.pause.map(|pause| match pause.hold {
            true => ("It's on hold".to_owned(), None),
            false => ("You can use it again".to_owned(), Some(When::new(pause.until, visit.now))),
        });
        choices.push(Choice {
            icon: if is_key(offer, offers, &view.factors) { "key" } else { offer.kind.as_str() },
            label: label(offer, offers, &view.factors),
            note: note(offer, offers),
            href: paused.is_none().then(|| here(&base, offer.kind, phone(offer))),
            why_not: paused,
        });
    }
    choices.extend(unfit(visit, offers, view));
    choices
}

/// What the person holds and cannot use here, with the reason.
fn unfit(visit: &Visit<Challenge>, offers: &[Offer], view: &UserView) -> Vec<Choice> {
    let offered = |kind| offers.iter().any(|o| o.kind == kind);
    let weak = |kind: MethodKind, note: &str, why: &str, until: Option<When>| Choice {
        icon: kind.as_str(),
        label: kind.default_name().to_owned(),
        note: note.to_owned(),
        href: None,
        why_not: Some((why.to_owned(), until)),
    };
    let (engine, terms) = (&visit.app.engine, &visit.subject.terms);
    let reason = |f: &Factor| match engine.cools_off_at(f, terms, visit.now) {
        Some(until) => weak(f.kind, &f.name, words::TOO_NEW, Some(When::new(until, visit.now))),
        None if engine.lacks_gateway(f, terms, visit.now) => weak(f.kind, &f.name, words::NO_TEXTS, None),
        None if terms.require.methods.as_ref().is_some_and(|methods| !methods.contains(&f.kind)) => {
            weak(f.kind, &f.name, "It can't be used for this request.", None)
        }
        None => weak(f.kind, &f.name, "It isn't enough for this request.", None),
    };
    let factors = view.factors.iter().filter(|f| f.is_active() && !is_offered(offers, f));
    let mut choices: Vec<Choice> = factors.map(reason).collect();
    let has_codes = view.recovery.status == RecoveryStatus::Active && view.recovery.remaining > 0;
    if has_codes && !offered(MethodKind::RecoveryCode) {
        let why = "Recovery codes can sign you in but can't confirm this action.";
        choices.push(weak(MethodKind::RecoveryCode, "", why, None));
    }
    choices
}

fn is_offered(offers: &[Offer], factor: &Factor) -> bool {
    offers.iter().any(|o| o.factor_id.as_ref() == Some(&factor.id))
}

fn is_key(offer: &Offer, offers: &[Offer], factors: &[Factor]) -> bool {
    offer.kind == MethodKind::Webauthn && keys_only(offers, factors)
}

fn label(offer: &Offer, offers: &[Offer], factors: &[Factor]) -> String {
    match offer.kind {
        MethodKind::Webauthn if is_key(offer, offers, factors) => "Security key".to_owned(),
        MethodKind::Sms => format!("Text to the number ending {}", last_digits(offer.hint.as_deref())),
        kind => kind.default_name().to_owned(),
    }
}

fn note(offer: &Offer, offers: &[Offer]) -> String {
    let names = match offer.kind {
        MethodKind::RecoveryCode => return offer.hint.clone().unwrap_or_default(),
        MethodKind::Sms => return offer.name.clone(),
        kind => match names(offers, kind) {
            names if names.is_empty() && offer.name != kind.default_name() => offer.name.clone(),
            names => names,
        },
    };
    let used = offers.iter().filter(|o| o.kind == MethodKind::Webauthn && o.kind == offer.kind);
    match used.filter_map(|o| o.last_used_at).max().map(words::day) {
        None => names,
        Some(day) if names.is_empty() => format!("Last used {day}"),
        Some(day) => format!("{names}, last used {day}"),
    }
}

/// The names of several factors of a kind; empty for one.
fn names(offers: &[Offer], kind: MethodKind) -> String {
    let names: Vec<&str> = offers.iter().filter(|o| o.kind == kind).map(|o| o.name.as_str()).collect();
    if names.len() > 1 { names.join(", ") } else { String::new() }
}

/// Where passkeys are kept, each provider once.
fn saved_in(offers: &[Offer]) -> String {
    let mut providers: Vec<&str> =
        offers.iter().filter(|o| o.kind == MethodKind::Webauthn).filter_map(|o| o.hint.as_deref()).collect();
    providers.sort_unstable();
    providers.dedup();
    providers.join(", ")
}

/// Whether all that the person may use are keys to be plugged in or held near.
fn keys_only(offers: &[Offer], factors: &[Factor]) -> bool {
    let mut credentials = factors
        .iter()
        .filter(|f| is_offered(offers, f))
        .filter_map(|f| match &f.details {
            Details::Webauthn(details) => Some(details),
            _ => None,
        })
        .peekable();
    credentials.peek().is_some() && credentials.all(WebauthnDetails::is_security_key)
}
