//! The portal: a person looks after the sign-in methods that they have with a relying party.

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::screen::{Message, Shell, show as render};
use super::views::{AddedPage, Card, Choice, SettingsPage};
use super::visit::{Fields, Posted, Subject, Visit, bound, land, open, remembered, see, timed_out};
use super::words::{self, Notice, day};
use crate::engine::{self, Error, UserView};
use crate::http::App;
use crate::http::problem::{self, Refused};
use crate::model::{Details, Factor, Flow, Id, Kind, MethodKind, PortalSession, RecoveryStatus, RecoverySummary};

/// Routes below `/portal/{id}`.
pub fn router() -> Router<App> {
    Router::new()
        .route("/portal/{id}", get(enter).post(open_link))
        .route("/portal/{id}/settings", get(settings).post(rename))
        .route("/portal/{id}/settings/{factor}/remove", get(ask_removal).post(remove))
        .route("/portal/{id}/added", get(added).post(name_added))
        .route("/portal/{id}/leave", get(leave))
        .route("/portal/{id}/done", get(done))
}

/// A visit to the portal.
pub type AtPortal = Visit<PortalSession>;

async fn enter(
    State(app): State<App>,
    visit: Result<AtPortal, Response>,
    query: Fields,
    parts: Parts,
) -> Result<Response, Response> {
    match (visit, query.text("token")) {
        (Ok(visit), "") => Ok(see(&visit.path(visit.subject.flow.page()))),
        (Ok(visit), _) => Ok(see(&visit.path(""))),
        (Err(closed), "") => Err(closed),
        (Err(_), token) => Ok(land::<PortalSession>(&app, &parts, token).await),
    }
}

async fn open_link(
    State(app): State<App>,
    visit: Result<AtPortal, Response>,
    parts: Parts,
    Posted(fields): Posted,
) -> Response {
    match visit {
        Ok(visit) => see(&visit.path("")),
        Err(_) => open::<PortalSession>(&app, &parts, &fields).await,
    }
}

impl AtPortal {
    /// Refuses a visit that has run out.
    pub fn in_time(&self) -> Result<(), Response> {
        match self.subject.is_over(self.now) {
            false => Ok(()),
            true => Err(timed_out(self.party(), self.subject.return_url.as_deref()).respond(StatusCode::GONE)),
        }
    }

    /// Lets the page of this flow be shown, or leads to the proof that it needs first.
    pub async fn admit(&self, flow: Flow) -> Result<(), Response> {
        self.in_time()?;
        match self.app.engine.needs_step_up(&self.caller, &self.subject.user_id, flow).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(self.step_up(flow.page()).await),
            Err(error) => Err(self.refuse(error.into(), flow.page()).await),
        }
    }

    /// Asks for a proof in this browser, and comes back to the page.
    pub async fn step_up(&self, page: &str) -> Response {
        match self.app.engine.portal_challenge(&self.caller, &self.subject, page).await {
            Ok((challenge, cookie)) => {
                let response = see(&format!("/challenge/{}", challenge.id));
                bound(&self.app, response, &challenge.id, &cookie, challenge.expires_at)
            }
            Err(error) => self.fault(error),
        }
    }

    /// The page for a refusal that the form itself does not explain.
    pub async fn refuse(&self, refused: Refused, page: &str) -> Response {
        let back = self.subject.return_url.as_deref().filter(|_| self.is_on_the_way());
        if let (Some(challenge), true) = (back, refused.is_of_the_end()) {
            // Its own page says how it ended.
            return see(challenge);
        }
        if refused.is(problem::STEP_UP_REQUIRED) {
            return self.step_up(page).await;
        }
        if refused.is(problem::REQUEST_INVALID) {
            let page = Message::new(self.party(), &full(page)).stopped();
            let page = page.line("Remove one first.").link("Your sign-in methods", &self.path("settings"));
            return page.respond(refused.code.status);
        }
        if refused.is(problem::NOT_FOUND) {
            let page = Message::new(self.party(), "This list changed in another window").stopped();
            return page.link("Your sign-in methods", &self.path("settings")).respond(refused.code.status);
        }
        self.fault(refused)
    }

    /// Whether the visit leads back to a challenge of ours that waits for what is set up.
    fn is_on_the_way(&self) -> bool {
        self.subject.return_url.as_ref().is_some_and(|url| url.starts_with('/'))
    }

    /// What the engine knows of the person.
    pub async fn person(&self) -> Result<UserView, Response> {
        self.app.engine.user_view(&self.caller, &self.subject.user_id).await.map_err(|e| self.fault(e))
    }
}

/// From a page to where it was come from: the list, where the visit began there.
async fn leave(visit: AtPortal) -> Response {
    let to_list = visit.subject.flow == Flow::Settings && !visit.is_on_the_way();
    see(&visit.path(if to_list { "settings" } else { "done" }))
}

async fn done(visit: AtPortal) -> Response {
    let party = visit.party();
    match &visit.subject.return_url {
        Some(own) if visit.is_on_the_way() => return see(own),
        Some(url) => Message::new(party, &format!("Back to {party}")).link("Continue", url).refresh(url),
        None => Message::new(party, "You can close this page").line(format!("Go back to {party} to go on.")),
    }
    .respond(StatusCode::OK)
}

// --- the list ---

async fn settings(visit: AtPortal, query: Fields) -> Result<Response, Response> {
    visit.in_time()?;
    list(&visit, &query, None, StatusCode::OK).await
}

async fn list(
    visit: &AtPortal,
    fields: &Fields,
    notice: Option<Notice>,
    status: StatusCode,
) -> Result<Response, Response> {
    let person = visit.person().await?;
    let active: Vec<&Factor> = person.factors.iter().filter(|f| f.is_active()).collect();
    let just_used = just_used(visit).await?;
    let wanted = visit.app.engine.wanted(&visit.caller).await.map_err(|e| visit.fault(e))?;
    let ids: Vec<&str> = active.iter().filter_map(|f| f.credential_id.as_deref()).collect();
    let mut shell = Shell::new(visit.party(), "Your sign-in methods");
    shell.is_error = notice.is_some();
    let page = SettingsPage {
        shell,
        base: visit.path(""),
        guard: visit.guard.clone(),
        cards: active.iter().map(|f| card(f, just_used.as_ref() == Some(&f.id))).collect(),
        adds: adds(&visit.path(""), |kind| match &wanted {
            Some(wanted) => wanted.contains(&kind),
            None => kind != MethodKind::Sms || visit.app.engine.sends_texts(),
        }),
        codes: codes_line(&person.recovery),
        codes_low: person.recovery.remaining <= 3 || person.recovery.status != RecoveryStatus::Active,
        notice,
        accepted: (visit.caller.rp.host.clone(), URL_SAFE_NO_PAD.encode(person.user.handle), ids.join(" ")),
        said: match fields.text("said") {
            "renamed" => Some("Renamed."),
            "removed" => Some("Removed. You can add it again below."),
            _ => None,
        },
        open: fields.text("factor").to_owned(),
        typed: fields.text("name").to_owned(),
    };
    Ok(render(status, &page))
}

/// By what the person was let in, for as long as that counts; a recovery code is no card.
async fn just_used(visit: &AtPortal) -> Result<Option<Id>, Response> {
    let Some(session) = &visit.subject.session_id else { return Ok(None) };
    match visit.app.engine.session(&visit.caller, session).await {
        Ok(session) if session.is_active(visit.now) => Ok(session.factor_id),
        Ok(_) | Err(Error::NotFound) => Ok(None),
        Err(error) => Err(visit.fault(error)),
    }
}

/// What is said where there are as many as there may be of what this page adds.
fn full(page: &str) -> String {
    let of = |kind, many: &str| {
        let most = engine::most_active(kind);
        format!("You have {most} of {most} {many}")
    };
    match page {
        page if page == Flow::AddPasskey.page() => of(MethodKind::Webauthn, "passkeys"),
        page if page == Flow::AddAuthenticatorApp.page() => of(MethodKind::Totp, "authenticator apps"),
        page if page == Flow::AddPhone.page() => of(MethodKind::Sms, "phones"),
        _ => "You have as many as there can be".to_owned(),
    }
}

/// The ways to add a method, of these kinds.
pub fn adds(base: &str, may: impl Fn(MethodKind) -> bool) -> Vec<Choice> {
    let all = [
        (MethodKind::Webauthn, "Passkey or security key", "Strongest", Flow::AddPasskey),
        (MethodKind::Totp, "Authenticator app", "", Flow::AddAuthenticatorApp),
        (MethodKind::Sms, "Phone", "Codes by text message", Flow::AddPhone),
    ];
    let choice = |(kind, label, note, flow): (MethodKind, &str, &str, Flow)| Choice {
        icon: kind.as_str(),
        label: label.to_owned(),
        note: note.to_owned(),
        href: Some(format!("{base}/{}", flow.page())),
        why_not: None,
    };
    all.into_iter().filter(|(kind, ..)| may(*kind)).map(choice).collect()
}

fn card(factor: &Factor, just_used: bool) -> Card {
    let used = factor.last_used_at.map(|at| format!(" · Last used {}", day(at))).unwrap_or_default();
    let mut badges = match &factor.details {
        Details::Webauthn(details) if details.backed_up => vec!["Synced"],
        Details::Webauthn(details) if details.backup_eligible => vec!["Not synced yet"],
        Details::Webauthn(_) => vec!["This device only"],
        Details::Totp | Details::Sms(_) => Vec::new(),
    };
    if just_used {
        badges.push("Used now");
    }
    let is_key = match &factor.details {
        Details::Webauthn(details) => details.is_security_key(),
        Details::Totp | Details::Sms(_) => false,
    };
    Card {
        id: factor.id.to_string(),
        name: factor.name.clone(),
        icon: if is_key { "key" } else { factor.kind.as_str() },
        kind: if is_key { "Security key" } else { factor.kind.default_name() },
        dates: format!("Added {}{used}", day(factor.created_at)),
        badges,
    }
}

/// Recovery codes in a line.
pub fn codes_line(summary: &RecoverySummary) -> String {
    let made = summary.created_at.map(|at| format!(" · made {}", day(at))).unwrap_or_default();
    match (summary.status, summary.remaining) {
        (RecoveryStatus::None, _) | (RecoveryStatus::Active, 0) => {
            "You have none. If you lose your devices, you can't get in.".to_owned()
        }
        (RecoveryStatus::Unconfirmed, _) => "Your codes aren't saved yet.".to_owned(),
        (RecoveryStatus::Active, n @ 1..=3) => format!("Only {n} left{made}. Get a new set."),
        (RecoveryStatus::Active, n) => format!("{n} of {} left{made}", summary.total),
    }
}

/// Gives a factor another name; tells what was refused.
async fn give_name(visit: &AtPortal, fields: &Fields) -> Result<Result<(), (Notice, StatusCode)>, Response> {
    let Some(id) = fields.id("factor", Kind::Factor) else { return Err(visit.fault(problem::NOT_FOUND)) };
    let Some(name) = words::name_of(fields) else {
        let notice = Notice::new("Choose another name.", "It has 1 to 50 characters.");
        return Ok(Err((notice, StatusCode::UNPROCESSABLE_ENTITY)));
    };
    let renamed = visit.app.engine.rename_factor(&visit.caller, &visit.subject.user_id, &id, &name).await;
    match renamed.map_err(Refused::from) {
        Ok(_) => Ok(Ok(())),
        Err(refused) if refused.is(problem::NAME_TAKEN) => {
            Ok(Err((Notice::new("You already use that name.", "Choose another one."), refused.code.status)))
        }
        Err(refused) => {
            // Kept over the proof (Y-11).
            let typed: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
            Err(visit.refuse(refused, &format!("{}?factor={id}&name={typed}", Flow::Settings.page())).await)
        }
    }
}

async fn rename(visit: AtPortal, Posted(fields): Posted) -> Result<Response, Response> {
    visit.check(&fields)?;
    visit.in_time()?;
    match give_name(&visit, &fields).await? {
        Ok(()) => Ok(see(&visit.path("settings?said=renamed"))),
        Err((notice, status)) => list(&visit, &fields, Some(notice), status).await,
    }
}

/// The visit's id, and a factor's behind it.
type InPath = Result<Path<(String, String)>, PathRejection>;

async fn factor_named(visit: &AtPortal, path: InPath) -> Result<Factor, Response> {
    visit.in_time()?;
    let gone = || {
        let page = Message::new(visit.party(), "This list changed in another window").stopped();
        page.link("Reload", &visit.path("settings")).respond(StatusCode::NOT_FOUND)
    };
    let id = path.ok().and_then(|Path((_, factor))| Id::parse(Kind::Factor, &factor)).ok_or_else(gone)?;
    let found = visit.app.engine.factor(&visit.caller, &visit.subject.user_id, &id).await;
    found.map_err(|error| if let Error::NotFound = error { gone() } else { visit.fault(error) })
}

async fn ask_removal(visit: AtPortal, factor: InPath) -> Result<Response, Response> {
    let factor = factor_named(&visit, factor).await?;
    let party = visit.party();
    let mut page = Message::new(party, &format!("Remove {}?", factor.name));
    page = page.line(format!("You won't be able to use it to sign in to {party}."));
    if matches!(&factor.details, Details::Webauthn(details) if !details.is_security_key()) {
        page = page.line("It may stay in your password manager; you can delete it there.");
    }
    if just_used(&visit).await?.as_ref() == Some(&factor.id) {
        page = page.line("You used this a moment ago to confirm it's you. Remove it anyway?");
    }
    if factor.kind == MethodKind::Totp {
        page = page.line("Afterwards delete the entry in your app.");
    }
    let path = visit.path(&format!("settings/{}/remove", factor.id));
    let page = page.link("Keep", &visit.path("settings")).danger("Remove", &path, &[("guard", &visit.guard)]);
    Ok(page.respond(StatusCode::OK))
}

async fn remove(visit: AtPortal, factor: InPath, Posted(fields): Posted) -> Result<Response, Response> {
    visit.check(&fields)?;
    let factor = factor_named(&visit, factor).await?;
    let removed = visit.app.engine.remove_factor(&visit.caller, &visit.subject.user_id, &factor.id).await;
    match removed.map_err(Refused::from) {
        Ok(()) => Ok(see(&visit.path("settings?said=removed"))),
        Err(refused) if refused.is(problem::LAST_FACTOR) => {
            let page = Message::new(visit.party(), "You can't remove your only method").stopped();
            let page = page.line("Add another first.").link("Add another", &visit.path("settings"));
            Ok(page.respond(refused.code.status))
        }
        Err(refused) => Err(visit.refuse(refused, &format!("settings/{}/remove", factor.id)).await),
    }
}

// --- after an enrolment ---

async fn added(visit: AtPortal, query: Fields) -> Result<Response, Response> {
    visit.in_time()?;
    success(&visit, None, None, !query.text("renamed").is_empty(), StatusCode::OK).await
}

async fn name_added(visit: AtPortal, Posted(fields): Posted) -> Result<Response, Response> {
    visit.check(&fields)?;
    visit.in_time()?;
    match give_name(&visit, &fields).await? {
        Ok(()) => Ok(see(&format!("{}?renamed=1", visit.path("added")))),
        Err((notice, status)) => success(&visit, Some(notice), Some(fields.text("name")), false, status).await,
    }
}

async fn success(
    visit: &AtPortal,
    notice: Option<Notice>,
    typed: Option<&str>,
    renamed: bool,
    status: StatusCode,
) -> Result<Response, Response> {
    let person = visit.person().await?;
    let just_added = |f: &&Factor| f.is_active() && Some(&f.id) == visit.subject.factor_id.as_ref();
    let Some(factor) = person.factors.iter().find(just_added) else { return Ok(see(&visit.path("settings"))) };
    let only = person.factors.iter().filter(|f| f.is_active()).count() == 1;
    let backup = only && person.recovery.status != RecoveryStatus::Active;
    let (heading, line) = words::added(factor, only);
    let mut shell = Shell::new(visit.party(), heading);
    shell.is_error = notice.is_some();
    let page = AddedPage {
        shell,
        base: visit.path(""),
        guard: visit.guard.clone(),
        factor: factor.id.to_string(),
        name: typed.unwrap_or(&factor.name).to_owned(),
        line,
        next: match &factor.details {
            _ if visit.is_on_the_way() => None,
            Details::Sms(_) => Some(("Add a passkey", Flow::AddPasskey.page())),
            _ if backup => Some(("Get recovery codes", Flow::RecoveryCodes.page())),
            Details::Webauthn(details) if !details.backed_up => Some(("Add another", Flow::AddPasskey.page())),
            Details::Webauthn(_) | Details::Totp => None,
        },
        done: if visit.is_on_the_way() { "Continue" } else { "Done" },
        notice,
        renamed,
    };
    let response = render(status, &page);
    // A passkey that this browser made is what it will offer first.
    Ok(match factor.kind {
        MethodKind::Webauthn => remembered(&visit.app, response, factor.kind),
        _ => response,
    })
}
