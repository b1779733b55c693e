//! Every screen in every state from example data, to be looked at on purpose. In development only.

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::screen::{Message, Shell, show as render};
use super::views::{
    AddedPage, AppPage, Card, Ceremony, ChallengePage, Choice, PasskeyPage, PhonePage, SentCode, SettingsPage, Way,
};
use super::visit::{cookies_blocked, no_such_link, timed_out};
use super::words::{self, Notice, When};
use super::{activity, ends, enrol, recovery};
use crate::engine::{Error, Undelivered};
use crate::http::App;
use crate::http::problem::{self, Code, Refused};
use crate::model::{ChallengeStatus, Detail, MethodKind, Timestamp};

const BANK: &str = "Harbour Bank";
/// 24 November 2026, 14:22 UTC.
const NOW: Timestamp = Timestamp::from_seconds(1_795_530_120);
const QR: &str = r##"<svg viewBox="0 0 29 29" role="img" aria-label="QR code that holds the setup key below"><path fill="#fff" d="M0 0h29v29H0z"/><path fill="#000" d="M4 4h7v7H4zM18 4h7v7h-7zM4 18h7v7H4zM13 13h3v3h-3zM18 18h2v2h-2zM22 22h3v3h-3z"/><path fill="#fff" d="M5 5h5v5H5zM19 5h5v5h-5zM5 19h5v5H5z"/><path fill="#000" d="M6 6h3v3H6zM20 6h3v3h-3zM6 20h3v3H6z"/></svg>"##;

/// Routes below `/dev/gallery`.
pub fn router() -> Router<App> {
    Router::new().route("/dev/gallery", get(index)).route("/dev/gallery/{name}", get(one))
}

async fn index() -> Response {
    let page = Message::new("Countersign", "Gallery").line("Every screen in every state, from example data.");
    let link = |page: Message, (name, _): (String, Response)| page.link(&name, &format!("/dev/gallery/{name}"));
    let mut page = examples().into_iter().fold(page, link);
    page.actions.iter_mut().for_each(|action| action.weight = "quiet");
    page.respond(StatusCode::OK)
}

async fn one(Path(name): Path<String>) -> Response {
    let found = examples().into_iter().find(|(known, _)| *known == name).map(|(_, page)| page);
    found.unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

/// All pages by name.
fn examples() -> Vec<(String, Response)> {
    let mut all = Vec::new();
    all.extend(links());
    all.extend(codes());
    all.extend(texts());
    all.extend(ceremonies());
    all.extend(endings());
    all.extend(enrolments());
    all.extend(recovery::examples(|heading| Shell::new(BANK, heading)));
    all.extend(settings());
    all.extend(activity::examples(|heading| Shell::new(BANK, heading), NOW));
    all
}

type Example = (String, Response);

fn example(name: impl Into<String>, page: Message) -> Example {
    (name.into(), page.respond(StatusCode::OK))
}

fn when(seconds: i64) -> When {
    When::new(NOW.plus_seconds(seconds), NOW)
}

fn choice(kind: MethodKind, label: &str, note: &str) -> Choice {
    let href = Some(format!("?method={}", kind.as_str()));
    Choice { icon: kind.as_str(), label: label.to_owned(), note: note.to_owned(), href, why_not: None }
}

fn challenge(way: Way) -> ChallengePage {
    let detail = |label: &str, value: &str| Detail { label: label.to_owned(), value: value.to_owned() };
    ChallengePage {
        shell: Shell::new(BANK, "Confirm it's you"),
        here: String::new(),
        guard: String::new(),
        why: format!("You're about to change your payout account in {BANK}."),
        details: vec![detail("New IBAN", "DE89 … 1234"), detail("Holder", "Jane Doe")],
        who: Some("j•••@example.com".to_owned()),
        visit: None,
        way,
        others: vec![
            choice(MethodKind::Totp, "Authenticator app", ""),
            choice(MethodKind::Sms, "Text to the number ending 23", "Phone"),
            choice(MethodKind::RecoveryCode, "Recovery code", "7 left"),
        ],
        notice: None,
        typed: String::new(),
        ends: when(540),
    }
}

fn shown(name: impl Into<String>, page: &ChallengePage) -> Example {
    (name.into(), render(StatusCode::OK, page))
}

fn refused(way: Way, kind: MethodKind, code: Code, left: i64, wait: Option<i64>, typed: &str) -> ChallengePage {
    let refused = Refused { attempts_left: Some(left), retry_after: wait, ..code.into() };
    let (notice, kept) = words::refused_code(kind, &refused, typed, BANK, NOW);
    let mut page = challenge(way);
    page.shell.is_error = true;
    page.notice = Some(notice);
    page.typed = kept;
    page
}

fn links() -> Vec<Example> {
    let land = Message::new(BANK, "Confirm it's you");
    let land = land.line(format!("{BANK} asks you to confirm something. It takes a few seconds."));
    vec![
        example("link-landing", land.post("Continue", "", &[])),
        ("link-unknown".to_owned(), no_such_link("req_019f0000000000000000000000000000")),
        example("link-cookies-blocked", cookies_blocked()),
        example("portal-timed-out", timed_out(BANK, Some("/dev/gallery"))),
    ]
}

fn codes() -> Vec<Example> {
    let app = || Way::App(String::new());
    let wrong = |left| refused(app(), MethodKind::Totp, problem::CODE_INCORRECT, left, None, "000000");
    let mut paused = challenge(Way::Paused(when(600)));
    paused.others[0].href = None;
    paused.others[0].why_not = Some(("You can use it again".to_owned(), Some(when(600))));
    let pause = Way::Paused(when(30));
    let hold = || Way::OnHold("req_019f0000000000000000000000000000".to_owned());
    let mut weak = challenge(words::set_up(&[MethodKind::Webauthn], Some("Authenticator app")));
    weak.others.truncate(1);
    weak.others[0].href = None;
    weak.others[0].why_not = Some(("It isn't enough for this request.".to_owned(), None));
    let code = |typed: &str| refused(app(), MethodKind::Totp, problem::CODE_MALFORMED, 5, None, typed);
    vec![
        shown("app", &challenge(app())),
        shown("app-several", &challenge(Way::App("Work phone, Tablet".to_owned()))),
        shown("app-short", &code("12345")),
        shown("app-letters", &code("12345a")),
        shown("app-wrong", &wrong(4)),
        shown("app-wrong-again", &wrong(3)),
        shown("app-wrong-last", &wrong(1)),
        shown("app-reused", &refused(app(), MethodKind::Totp, problem::CODE_REUSED, 4, None, "123456")),
        shown("app-paused-now", &refused(pause, MethodKind::Totp, problem::METHOD_PAUSED, 4, Some(600), "123456")),
        shown("app-paused-later", &paused),
        shown("app-on-hold", &challenge(hold())),
        shown("app-on-hold-now", &refused(hold(), MethodKind::Totp, problem::CODE_INCORRECT, 4, None, "000000")),
        shown("recovery-code", &challenge(Way::RecoveryCode)),
        shown(
            "recovery-code-wrong",
            &refused(Way::RecoveryCode, MethodKind::RecoveryCode, problem::CODE_INCORRECT, 4, None, "ABCD-2345"),
        ),
        shown("nothing-enrolled", &ChallengePage { others: Vec::new(), ..challenge(Way::Nothing) }),
        shown("nothing-enrolled-set-up", &ChallengePage { others: Vec::new(), ..challenge(words::set_up(&[], None)) }),
        shown("not-strong-enough", &weak),
        shown("many-details", &long()),
    ]
}

/// Long words everywhere: nothing may break out of the card.
fn long() -> ChallengePage {
    let value = "DE89370400440532013000".repeat(4);
    let mut page = challenge(Way::App(String::new()));
    page.details.push(Detail { label: "Reference".to_owned(), value });
    page.who = Some(format!("j•••@{}.example.com", "subdomain".repeat(8)));
    page.shell.app = "Landesbausparkassenverwaltungsgesellschaft".to_owned();
    page
}

fn texts() -> Vec<Example> {
    let before = || Way::Text("fac_1".to_owned(), "23".to_owned(), None);
    let sent = |resend: Option<i64>, more| {
        Way::Text(
            "fac_1".to_owned(),
            "23".to_owned(),
            Some(SentCode { resend: resend.map(when), more, expired: false }),
        )
    };
    let no = |way: Way, code: Code, wait| refused(way, MethodKind::Sms, code, 4, wait, "000000");
    let undeliverable = Refused::from(Error::Undelivered(Undelivered::Rejected)).code;
    vec![
        shown("text-before", &challenge(before())),
        shown("text-sent", &challenge(sent(Some(30), 2))),
        shown("text-resend", &challenge(sent(None, 1))),
        shown("text-wrong", &no(sent(None, 1), problem::CODE_INCORRECT, None)),
        shown("text-expired", &no(sent(None, 1), problem::CODE_EXPIRED, None)),
        shown("text-limit", &no(sent(None, 0), problem::SEND_LIMITED, Some(540))),
        shown("text-undelivered-again", &no(sent(None, 1), problem::DELIVERY_UNAVAILABLE, Some(5))),
        shown("text-undelivered", &no(before(), problem::DELIVERY_UNAVAILABLE, Some(5))),
        shown("text-undeliverable", &no(before(), undeliverable, Some(5))),
    ]
}

fn ceremony(kind: &'static str, state: &'static str, key_only: bool) -> Ceremony {
    let saved_in = if key_only { String::new() } else { "iCloud Keychain".to_owned() };
    let host = "localhost".to_owned();
    Ceremony { kind, state, base: "/dev/gallery".to_owned(), guard: String::new(), host, key_only, saved_in }
}

fn ceremonies() -> Vec<Example> {
    let states = [
        "ready",
        "waiting",
        "saving",
        "cancelled",
        "again",
        "lock",
        "unsupported",
        "insecure",
        "unknown",
        "refused",
        "fault",
        "lost",
        "offline",
    ];
    let get = |state| shown(format!("passkey-{state}"), &challenge(Way::Passkey(ceremony("get", state, false))));
    let mut all: Vec<Example> = states.into_iter().map(get).collect();
    let mut alone = challenge(Way::Passkey(ceremony("get", "ready", false)));
    alone.others.truncate(1);
    alone.others[0].href = None;
    alone.others[0].why_not = Some(("It isn't enough for this request.".to_owned(), None));
    all.push(shown("passkey-alone", &alone));
    let mut other = challenge(Way::App(String::new()));
    other.others[0] = choice(MethodKind::Webauthn, "Passkey", "iCloud Keychain · iPhone, last used 24 November 2026");
    all.push(shown("passkey-as-another-way", &other));
    let mut new = challenge(Way::Passkey(ceremony("get", "ready", false)));
    let why_not = Some((words::TOO_NEW.to_owned(), Some(when(10_800))));
    new.others.insert(0, Choice { href: None, why_not, ..choice(MethodKind::Webauthn, "Passkey", "Passkey 2") });
    all.push(shown("passkey-cooling-off", &new));
    all.push(shown("security-key", &challenge(Way::Passkey(ceremony("get", "ready", true)))));
    let states = [
        "ready",
        "waiting",
        "saving",
        "cancelled",
        "already",
        "lock",
        "unsupported",
        "insecure",
        "unsaved",
        "limit",
        "refused",
        "fault",
        "lost",
        "offline",
    ];
    all.extend(states.into_iter().map(|state| {
        let shell = Shell::new(BANK, "Create a passkey");
        let page = PasskeyPage {
            shell,
            ceremony: ceremony("create", state, false),
            base: "/dev/gallery".to_owned(),
            most: 20,
        };
        (format!("create-{state}"), render(StatusCode::OK, &page))
    }));
    all
}

fn endings() -> Vec<Example> {
    let back = Some("#");
    let still = |page: Message| Message { refresh: None, ..page };
    let over = |status| still(ends::without_proof(BANK, status, back, true));
    vec![
        example("done", still(ends::thanks(BANK, back))),
        example("done-no-return", ends::thanks(BANK, None)),
        example("done-already", ends::already(BANK, back)),
        example("done-recovery", ends::by_recovery_code(BANK, 7, back, None)),
        example("done-recovery-few", ends::by_recovery_code(BANK, 2, back, None)),
        example("done-recovery-last", ends::by_recovery_code(BANK, 0, back, None)),
        example("cancelled", over(ChallengeStatus::Cancelled)),
        example("denied", over(ChallengeStatus::Denied)),
        example("denied-paused", over(ChallengeStatus::Denied).until("You can use codes again", when(30))),
        example("expired", over(ChallengeStatus::Expired)),
        example("newer-request", ends::newer(BANK, "#", ("", &[]))),
        example("expired-no-return", ends::without_proof(BANK, ChallengeStatus::Expired, None, false)),
    ]
}

fn enrolments() -> Vec<Example> {
    let app = |renewed: bool, notice: Option<Notice>| AppPage {
        shell: Shell { is_error: notice.is_some(), ..Shell::new(BANK, "Set up your authenticator app") },
        base: String::new(),
        guard: String::new(),
        qr_svg: QR.to_owned(),
        key: "FDIB J2CY GMCT NSCE 4D3C 6TT2 AN4P J6XI".to_owned(),
        uri: "otpauth://totp/example".to_owned(),
        renewed,
        notice,
        typed: String::new(),
    };
    let phone = |sent: Option<(String, SentCode)>, notice: Option<Notice>| PhonePage {
        shell: Shell { is_error: notice.is_some(), ..Shell::new(BANK, "Add your phone") },
        base: String::new(),
        guard: String::new(),
        typed: if sent.is_none() { "0151 2".to_owned() } else { String::new() },
        sent,
        countries: enrol::countries("DE").collect(),
        notice,
    };
    let no = |code: Code| Some(words::refused_phone(&code.into(), false, NOW));
    let undeliverable = Refused::from(Error::Undelivered(Undelivered::Rejected)).code;
    let wrong = words::refused_code(MethodKind::Totp, &problem::CODE_INCORRECT.into(), "000000", BANK, NOW).0;
    let added = |heading: &str, line: &str, notice| AddedPage {
        shell: Shell::new(BANK, heading),
        base: String::new(),
        guard: String::new(),
        factor: String::new(),
        name: "iCloud Keychain · iPhone".to_owned(),
        line: line.to_owned(),
        next: Some(("Get recovery codes", "recovery-codes")),
        done: "Done",
        notice,
        renamed: false,
    };
    let taken = Some(Notice::new("You already use that name.", "Choose another one."));
    let ok = StatusCode::OK;
    vec![
        ("add-app".to_owned(), render(ok, &app(false, None))),
        ("add-app-renewed".to_owned(), render(ok, &app(true, None))),
        ("add-app-wrong".to_owned(), render(ok, &app(false, Some(wrong)))),
        ("add-phone".to_owned(), render(ok, &phone(None, None))),
        ("add-phone-short".to_owned(), render(ok, &phone(None, no(problem::PHONE_INVALID)))),
        ("add-phone-refused".to_owned(), render(ok, &phone(None, no(problem::PHONE_NOT_ALLOWED)))),
        ("add-phone-undeliverable".to_owned(), render(ok, &phone(None, no(undeliverable)))),
        ("add-phone-known".to_owned(), render(ok, &phone(None, no(problem::FACTOR_DUPLICATE)))),
        (
            "add-phone-sent".to_owned(),
            render(
                ok,
                &phone(Some(("23".to_owned(), SentCode { resend: Some(when(30)), more: 2, expired: false })), None),
            ),
        ),
        (
            "add-phone-expired".to_owned(),
            render(ok, &phone(Some(("23".to_owned(), SentCode { resend: None, more: 0, expired: true })), None)),
        ),
        (
            "added-passkey".to_owned(),
            render(
                ok,
                &added(
                    "Passkey added",
                    "Saved in iCloud Keychain. You can use it on devices where iCloud Keychain is signed in.",
                    None,
                ),
            ),
        ),
        (
            "added-name-taken".to_owned(),
            render(ok, &added("Phone added", "Texts can be intercepted. A passkey is safer.", taken)),
        ),
    ]
}

fn settings() -> Vec<Example> {
    let card = |icon: &'static str, name: &str, kind: &'static str, badges: Vec<&'static str>| Card {
        id: format!("fac_{icon}"),
        name: name.to_owned(),
        icon,
        kind,
        dates: "Added 2 January 2026 · Last used 24 November 2026".to_owned(),
        badges,
    };
    let cards = vec![
        card("webauthn", "iCloud Keychain · iPhone", "Passkey", vec!["Synced", "Used now"]),
        card("key", "YubiKey 5", "Security key", vec!["This device only"]),
        card("totp", "Authenticator app", "Authenticator app", Vec::new()),
        card("sms", "Phone", "Phone", Vec::new()),
    ];
    let page = |cards: Vec<Card>, codes: &str, low, notice: Option<Notice>| SettingsPage {
        shell: Shell { is_error: notice.is_some(), ..Shell::new(BANK, "Your sign-in methods") },
        base: String::new(),
        guard: String::new(),
        cards,
        adds: super::portal::adds("", |_| true),
        codes: codes.to_owned(),
        codes_low: low,
        accepted: ("localhost".to_owned(), String::new(), String::new()),
        typed: if notice.is_some() { "Phone".to_owned() } else { String::new() },
        said: None,
        open: if notice.is_some() { "fac_key".to_owned() } else { String::new() },
        notice,
    };
    let none = "You have none. If you lose your devices, you can't get in.";
    let taken = Some(Notice::new("You already use that name.", "Choose another one."));
    let full = "7 of 10 left · made 2 January 2026";
    vec![
        ("settings".to_owned(), render(StatusCode::OK, &page(cards.clone(), full, false, None))),
        ("settings-empty".to_owned(), render(StatusCode::OK, &page(Vec::new(), none, true, None))),
        ("settings-one".to_owned(), render(StatusCode::OK, &page(vec![cards[0].clone()], none, true, None))),
        ("settings-name-taken".to_owned(), render(StatusCode::OK, &page(cards, full, false, taken))),
    ]
}
