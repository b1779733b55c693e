//! Recovery codes on the portal: how many are left, a new set shown once, and its confirmation. The codes go back and forth in the
//! person's own form only, so that the page can be shown again without keeping them.

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::portal::{AtPortal, codes_line};
use super::screen::{Message, Shell, show as render};
use super::views::CodesPage;
use super::visit::{Fields, Posted, see};
use super::words::{self, Notice, day};
use crate::http::App;
use crate::http::problem::{self, Refused};
use crate::model::{Flow, Id, Kind, RecoveryStatus};

/// Routes below `/portal/{id}`.
pub fn router() -> Router<App> {
    Router::new()
        .route("/portal/{id}/recovery-codes", get(status).post(act))
        .route("/portal/{id}/recovery-codes/file", get(back).post(file))
}

async fn status(visit: AtPortal, query: Fields) -> Result<Response, Response> {
    visit.admit(Flow::RecoveryCodes).await?;
    let summary = visit.app.engine.recovery_summary(&visit.caller, &visit.subject.user_id).await;
    let summary = summary.map_err(|e| visit.fault(e))?;
    let here = visit.path(Flow::RecoveryCodes.page());
    let fields = [("guard", visit.guard.as_str()), ("do", "make")];
    let page = if summary.status == RecoveryStatus::Active && !query.text("saved").is_empty() {
        let page = Message::new(visit.party(), "Recovery codes saved").done().line(codes_line(&summary));
        page.line("Keep them where you'd find them without your phone.").link("Done", &visit.path("leave"))
    } else {
        let page = Message::new(visit.party(), "Recovery codes");
        let page = page.line("If you lose your devices, these get you in. Each works once.").line(codes_line(&summary));
        match summary.status {
            RecoveryStatus::Active => {
                let page = page.line("Get new codes? The old ones stop working as soon as you've saved the new ones.");
                page.post("Get new codes", &here, &fields)
            }
            RecoveryStatus::None | RecoveryStatus::Unconfirmed => page.post("Get recovery codes", &here, &fields),
        }
        .link("Not now", &visit.path("leave"))
    };
    Ok(page.respond(StatusCode::OK))
}

async fn act(visit: AtPortal, Posted(fields): Posted) -> Result<Response, Response> {
    visit.check(&fields)?;
    visit.in_time()?;
    if fields.text("do") == "make" {
        return make(&visit).await;
    }
    let Some(shown) = carried(&fields) else { return Ok(see(&visit.path(Flow::RecoveryCodes.page()))) };
    match fields.text("do") {
        "leave" => Ok(codes_page(&visit, shown, None, true).await?),
        "confirm" if fields.text("saved").is_empty() => {
            let notice = Notice::new("Save your codes first.", "Then tick the box.");
            codes_page(&visit, shown, Some(notice), false).await
        }
        "confirm" => confirm(&visit, &shown.0).await,
        _ => codes_page(&visit, shown, None, false).await,
    }
}

async fn make(visit: &AtPortal) -> Result<Response, Response> {
    let made = visit.app.engine.create_recovery_codes(&visit.caller, &visit.subject.user_id, true).await;
    match made.map_err(Refused::from) {
        Ok(made) => {
            let shown = (made.set, made.codes.iter().map(|c| c.to_string()).collect());
            codes_page(visit, shown, None, false).await
        }
        Err(refused) if refused.is(problem::REQUEST_INVALID) => {
            let page = Message::new(visit.party(), "Set up a second step first").stopped();
            let page = page.line("Recovery codes stand in for a passkey, app or phone that you have lost.");
            Ok(page.link("Create a passkey", &visit.path(Flow::AddPasskey.page())).respond(refused.code.status))
        }
        Err(refused) => Err(visit.refuse(refused, Flow::RecoveryCodes.page()).await),
    }
}

async fn confirm(visit: &AtPortal, set: &Id) -> Result<Response, Response> {
    let page = visit.path(Flow::RecoveryCodes.page());
    let confirmed = visit.app.engine.confirm_recovery_codes(&visit.caller, &visit.subject.user_id, Some(set)).await;
    match confirmed.map_err(Refused::from) {
        Ok(_) => Ok(see(&format!("{page}?saved=1"))),
        Err(refused) if refused.is(problem::NOT_FOUND) => {
            let told = Message::new(visit.party(), "These codes don't work").stopped();
            let told = told
                .line("They no longer count, perhaps because newer ones were made in another window. Throw them away.");
            Ok(told.link("Your recovery codes", &page).respond(StatusCode::CONFLICT))
        }
        Err(refused) => Err(visit.refuse(refused, Flow::RecoveryCodes.page()).await),
    }
}

async fn codes_page(
    visit: &AtPortal,
    (set, codes): (Id, Vec<String>),
    notice: Option<Notice>,
    leaving: bool,
) -> Result<Response, Response> {
    let heading = if leaving { "Your codes aren't saved yet" } else { "Save your recovery codes" };
    let mut shell = Shell::new(visit.party(), heading);
    shell.is_error = notice.is_some();
    let status = if notice.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let caption = caption(visit).await?;
    let (base, guard) = (visit.path(""), visit.guard.clone());
    Ok(render(status, &CodesPage { shell, base, guard, set: set.to_string(), codes, caption, notice, leaving }))
}

/// Whose codes these are, and made when.
async fn caption(visit: &AtPortal) -> Result<String, Response> {
    let who = words::masked(&visit.person().await?.user).map(|who| format!(" for {who}")).unwrap_or_default();
    Ok(format!("{} recovery codes{who}, {}", visit.party(), day(visit.now)))
}

/// The set and its codes as the person's own form brings them back; nothing else passes.
fn carried(fields: &Fields) -> Option<(Id, Vec<String>)> {
    let set = Id::parse(Kind::RecoverySet, fields.text("set"))?;
    let codes: Vec<String> = fields.text("codes").split_whitespace().map(str::to_owned).collect();
    let is_code =
        |c: &String| c.len() == 19 && c.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase() || b == b'-');
    (codes.len() == 10 && codes.iter().all(is_code)).then_some((set, codes))
}

/// The codes are seen once: whoever asks for them again, as after a fault, is led to where new ones are made.
async fn back(visit: AtPortal) -> Response {
    see(&visit.path(Flow::RecoveryCodes.page()))
}

async fn file(visit: AtPortal, Posted(fields): Posted) -> Result<Response, Response> {
    visit.check(&fields)?;
    let Some((_, codes)) = carried(&fields) else { return Ok(see(&visit.path(Flow::RecoveryCodes.page()))) };
    let text = format!(
        "{}\nEach works once, as soon as you have confirmed on the page that you saved them.\n\n{}\n",
        caption(&visit).await?,
        codes.join("\n")
    );
    let name = format!("attachment; filename=\"{}\"", words::codes_file(visit.party()));
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, name)], text).into_response())
}

/// For the gallery.
pub fn examples(shell: impl Fn(&str) -> Shell) -> [(String, Response); 3] {
    let page = |name: &str, heading: &str, notice: Option<Notice>, leaving| {
        let shell = Shell { is_error: notice.is_some(), ..shell(heading) };
        let caption = format!("{} recovery codes for j•••@example.com, 24 November 2026", shell.app);
        let codes = (0..10).map(|n| format!("ZGJ{n}-MA8W-SYV3-ZR3D")).collect();
        let (base, guard, set) = Default::default();
        (
            name.to_owned(),
            render(StatusCode::OK, &CodesPage { shell, base, guard, set, codes, caption, notice, leaving }),
        )
    };
    let first = Some(Notice::new("Save your codes first.", "Then tick the box."));
    [
        page("codes", "Save your recovery codes", None, false),
        page("codes-not-ticked", "Save your recovery codes", first, false),
        page("codes-leaving", "Your codes aren't saved yet", None, true),
    ]
}
