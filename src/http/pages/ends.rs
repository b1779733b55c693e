//! How a challenge ends, as pages: thanks, already answered, cancelled, closed, timed out. Pure: the way back is handed in.

use super::screen::Message;
use crate::model::ChallengeStatus;

/// It was not answered rightly. Only the page that follows a cancellation itself (`now`) goes on by itself.
pub fn without_proof(party: &str, status: ChallengeStatus, target: Option<&str>, now: bool) -> Message {
    let (heading, line) = match status {
        ChallengeStatus::Cancelled => ("This request was cancelled", "Nothing was changed."),
        ChallengeStatus::Denied => ("This request is closed", "Too many tries didn't work. Nothing was changed."),
        ChallengeStatus::Expired | ChallengeStatus::Pending | ChallengeStatus::Approved => {
            ("This request timed out", "For your safety it was open for 10 minutes only. Nothing was changed.")
        }
    };
    let page = Message::new(party, heading).stopped().line(line);
    let Some(target) = target else {
        return page.line(format!("Go back to {party} to start again. You can close this page."));
    };
    if target.starts_with('/') {
        return page.link("Back to your sign-in methods", target);
    }
    match status {
        ChallengeStatus::Cancelled if now => page.link(&format!("Return to {party}"), target).refresh(target),
        ChallengeStatus::Cancelled | ChallengeStatus::Denied => page.link(&format!("Return to {party}"), target),
        _ => page.link("Start again", target),
    }
}

/// The same browser began another one since; here nothing is answered until that one has ended. `again` calls this one off.
pub fn newer(party: &str, target: &str, again: (&str, &[(&str, &str)])) -> Message {
    let page = Message::new(party, "A newer request is open").stopped();
    let page = page.line("Finish it in the other window, or start again here.");
    page.link("Go to the newer request", target).post("Start again", again.0, again.1)
}

/// It was answered rightly a moment ago, and goes on by itself.
pub fn thanks(party: &str, target: Option<&str>) -> Message {
    let page = Message::new(party, "Thanks, it's you").done();
    match target {
        Some(target) if target.starts_with('/') => page.link("Continue", target).refresh(target),
        Some(target) => page.line(format!("Taking you back to {party}…")).link("Continue", target).refresh(target),
        None => page.line(format!("{party} knows. You can close this page.")),
    }
}

/// It was answered before: in another tab, or the person came back.
pub fn already(party: &str, target: Option<&str>) -> Message {
    let page = Message::new(party, "You've already confirmed this").done();
    match target {
        Some(target) if target.starts_with('/') => page.link("Continue", target),
        Some(target) => page.link(&format!("Continue to {party}"), target),
        None => page.line(format!("{party} knows. You can close this page.")),
    }
}

/// It was answered by a recovery code: there is something to read first, so it waits for a press. `methods` is
/// the list of them, where this browser has it open.
pub fn by_recovery_code(party: &str, left: i64, target: Option<&str>, methods: Option<&str>) -> Message {
    let page = match left {
        0 => Message::new(party, "That was your last recovery code")
            .line("You're in. Save a new set before you need one again."),
        1 => Message::new(party, "Thanks, it's you").line("You're in. 1 recovery code left. Get a new set soon."),
        2..=3 => Message::new(party, "Thanks, it's you")
            .line(format!("You're in. {left} recovery codes left. Get a new set soon.")),
        _ => Message::new(party, "Thanks, it's you").line(format!("You're in. {left} recovery codes left.")),
    };
    let page = page.done().line("Lost a device? Remove it from your sign-in methods now, so nobody else can use it.");
    match target {
        // Back to the sign-in methods, where it was asked for.
        Some(target) if target.starts_with('/') => {
            let page = page.link("Continue", target);
            methods.into_iter().fold(page, |page, methods| page.link("Review sign-in methods", methods))
        }
        Some(target) => page.link(&format!("Continue to {party}"), target).renewed(),
        None => page,
    }
}
