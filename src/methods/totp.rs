//! Codes of an authenticator app (RFC 6238): 160-bit secret, SHA-1, 6 digits, 30 seconds.
//! A code of this step or the one before is right, a future one never; a step is spent by the row that the engine moves on.

use qrcode::{Color, EcLevel, QrCode};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use totp_rs::{Builder, Secret};
use zeroize::Zeroizing;

use super::{
    Answer, Begun, Enrolled, Exam, Fault, Held, Method, Parties, Proven, Refusal, Shown, Spent, Wish, six_digits,
};
use crate::model::{Channel, Details, Evidence, Id, Keyed, Moment, Timestamp, misleads};

/// Length of a secret in bytes (RFC 4226, 4, R6 recommends 160 bits).
const SECRET: usize = 20;
/// Length of a step in seconds.
pub const PERIOD: i64 = 30;
/// Digits of a code.
pub const DIGITS: u8 = 6;
/// Steps whose codes are right at a time: this one and those before it.
pub const ACCEPTED: i64 = 2;
/// Longest issuer and account in the otpauth address, in characters: the QR symbol stays readable.
const LONGEST_NAME: usize = 64;

/// The method.
pub struct Totp;

impl Method for Totp {
    fn begin_enrolment(
        &self,
        at: &Moment<'_>,
        _keyed: &dyn Keyed,
        parties: &Parties,
        _owner: &Id,
        _wish: &Wish,
        _held: &[Held],
    ) -> Result<Begun, Refusal> {
        let secret = Zeroizing::new(at.random::<SECRET>().to_vec());
        Ok(Begun {
            shown: set_up(parties, &secret),
            secret: Some(secret),
            state: None,
            text: None,
            details: Details::Totp,
        })
    }

    fn finish_enrolment(&self, exam: &Exam) -> Result<Enrolled, Refusal> {
        let pending = exam.held.first().ok_or(Refusal::NotAllowed)?;
        let code = six_digits(exam.answer.code()?)?;
        let step = matching_step(&pending.secret, &code, exam.now).ok_or(Refusal::Wrong(Fault::Code))?;
        Ok(Enrolled { details: Details::Totp, secret: None, credential_id: None, last_step: step })
    }

    fn check_form(&self, answer: &Answer) -> Result<(), Refusal> {
        six_digits(answer.code()?).map(drop)
    }

    fn verify(&self, exam: &Exam) -> Result<Proven, Refusal> {
        let code = six_digits(exam.answer.code()?)?;
        let mut refusal = Refusal::Wrong(Fault::Code);
        for held in &exam.held {
            match matching_step(&held.secret, &code, exam.now) {
                Some(step) if step > held.factor.last_step => {
                    return Ok(Proven {
                        spent: Spent::Step { factor: held.factor.id.clone(), step },
                        evidence: Evidence::of_code(Channel::AuthenticatorApp),
                    });
                }
                Some(_) => refusal = Refusal::Replayed,
                None => {}
            }
        }
        Err(refusal)
    }
}

/// What a person needs to set an app up with this secret.
pub fn set_up(parties: &Parties, secret: &[u8]) -> Shown {
    let otp = builder(secret)
        .with_issuer(Some(named(&parties.rp.name)))
        .with_account_name(named(parties.user.login_hint.as_deref().unwrap_or_else(|| parties.user.shown_name())))
        .build()
        .expect("secret length, digits and names are within the crate's bounds");
    let uri = Zeroizing::new(otp.to_url().expect("an address can be made of valid names"));
    Shown::Totp {
        secret: Zeroizing::new(Secret::from(secret).to_base32()),
        qr_svg: Zeroizing::new(qr_svg(&uri)),
        otpauth_uri: uri,
    }
}

/// The code of an instant; for tests and for the demo's readers.
pub fn code_at(secret: &[u8], at: Timestamp) -> String {
    let otp = builder(secret).build().expect("secret length and digits are within the crate's bounds");
    otp.generate(at.seconds().max(0) as u64).to_string()
}

/// The step of {previous, now} whose code this is; the later one where both match. Always computes both.
fn matching_step(secret: &[u8], code: &str, now: Timestamp) -> Option<i64> {
    let step = now.seconds().max(0) / PERIOD;
    let matches = |step: i64| code_at(secret, Timestamp::from_seconds(step * PERIOD)).as_bytes().ct_eq(code.as_bytes());
    let mut found = 0;
    for candidate in (step - ACCEPTED + 1).max(0)..=step {
        found.conditional_assign(&candidate, matches(candidate));
    }
    (found > 0).then_some(found)
}

fn builder(secret: &[u8]) -> Builder {
    Builder::new().with_secret(Secret::from(secret)).with_digits(DIGITS).with_step_duration(PERIOD as u64).with_skew(0)
}

/// A name fit for a label: without the colon that separates issuer and account, without what misleads or apps
/// do not know, not too long.
fn named(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c == ':' { ' ' } else { c })
        .filter(|c| !misleads(*c) && !matches!(c, '\u{2066}'..='\u{2069}'))
        .take(LONGEST_NAME)
        .collect();
    let clean = clean.trim();
    if clean.is_empty() { "-".to_owned() } else { clean.to_owned() }
}

/// A QR symbol with the quiet zone of four modules, black on white whatever the page's colours, one run of modules a piece.
fn qr_svg(text: &str) -> String {
    const QUIET: usize = 4;
    let symbol = QrCode::with_error_correction_level(text, EcLevel::M)
        .or_else(|_| QrCode::with_error_correction_level(text, EcLevel::L))
        .expect("an otpauth address with names of bounded length fits a QR symbol");
    let width = symbol.width();
    let size = width + 2 * QUIET;
    let mut path = String::new();
    for (y, row) in symbol.to_colors().chunks(width).enumerate() {
        let mut x = 0;
        while x < width {
            let run = row[x..].iter().take_while(|c| **c == row[x]).count();
            if row[x] == Color::Dark {
                path.push_str(&format!("M{} {}h{run}v1h-{run}z", x + QUIET, y + QUIET));
            }
            x += run;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size} {size}\" role=\"img\" aria-label=\"QR code that holds the setup key below\" shape-rendering=\"crispEdges\"><path fill=\"#fff\" d=\"M0 0h{size}v{size}H0z\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::methods::specimen::{self, NOW, OpenKeys, code, exam};
    use crate::model::{MethodKind, RelyingParty};
    use proptest::prelude::*;

    /// RFC 4226, appendix D: the secret of its table, which RFC 6238 uses for SHA-1 too.
    const RFC_SECRET: &[u8] = b"12345678901234567890";

    /// T-05: RFC 4226, appendix D; counter n is step n.
    #[test]
    fn the_codes_of_rfc_4226_come_out() {
        let codes =
            ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        for (counter, code) in codes.iter().enumerate() {
            assert_eq!(
                &code_at(RFC_SECRET, Timestamp::from_seconds(counter as i64 * PERIOD)),
                code,
                "counter {counter}"
            );
        }
    }

    /// T-05: RFC 6238, appendix B, SHA-1, the last six of its eight digits.
    #[test]
    fn the_codes_of_rfc_6238_come_out() {
        let table = [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ];
        for (seconds, code) in table {
            assert_eq!(code_at(RFC_SECRET, Timestamp::from_seconds(seconds)), code, "time {seconds}");
        }
    }

    /// T-04: a code is text, and a leading zero belongs to it.
    #[test]
    fn a_code_with_a_leading_zero_needs_it() {
        let now = Timestamp::from_seconds(1_111_111_109);
        assert!(matching_step(RFC_SECRET, "081804", now).is_some());
        assert_eq!(six_digits("81804"), Err(Refusal::Malformed));
    }

    proptest! {
        /// T-06, T-07: this step and the one before, never one to come.
        #[test]
        fn only_this_step_and_the_previous_match(seconds in 60i64..40_000_000_000, ahead in 1i64..5, back in 2i64..5) {
            let now = Timestamp::from_seconds(seconds);
            let step = seconds / PERIOD;
            let code = |step: i64| code_at(RFC_SECRET, Timestamp::from_seconds(step * PERIOD));
            prop_assert_eq!(matching_step(RFC_SECRET, &code(step), now), Some(step));
            let near = [code(step), code(step - 1)];
            if near[0] != near[1] {
                prop_assert_eq!(matching_step(RFC_SECRET, &near[1], now), Some(step - 1));
            }
            for other in [code(step + ahead), code(step - back)] {
                if !near.contains(&other) {
                    prop_assert_eq!(matching_step(RFC_SECRET, &other, now), None);
                }
            }
        }

        /// T-16: names are data, whatever stands in them.
        #[test]
        fn an_address_has_one_issuer_whatever_the_names(issuer in "\\PC{0,80}", account in "\\PC{0,80}") {
            let Shown::Totp { otpauth_uri, qr_svg, .. } = set_up(&parties(&issuer, &account), &[7; SECRET]) else {
                unreachable!("a TOTP set-up")
            };
            let url = url::Url::parse(&otpauth_uri).expect("an address");
            prop_assert_eq!(url.query_pairs().filter(|(k, _)| k == "issuer").count(), 1);
            prop_assert_eq!(url.query_pairs().filter(|(k, _)| k == "secret").count(), 1);
            prop_assert_eq!(qr_svg.matches('<').count(), 5 - 1);
        }
    }

    fn parties(issuer: &str, account: &str) -> Parties {
        let mut parties = specimen::parties();
        parties.rp = std::sync::Arc::new(RelyingParty { name: issuer.to_owned(), ..(*parties.rp).clone() });
        parties.user.login_hint = Some(account.to_owned());
        parties
    }

    fn app(number: u8, secret: &[u8], last_step: i64) -> Held {
        let mut held = specimen::held(number, MethodKind::Totp, Details::Totp, secret);
        held.factor.last_step = last_step;
        held
    }

    /// T-01, T-14: what is shown and what is kept are the same 160 bits, drawn anew each time.
    #[test]
    fn a_set_up_shows_the_secret_that_is_kept() {
        let at = Moment::new(NOW, &SystemRng);
        let begin = || {
            Totp.begin_enrolment(&at, &OpenKeys, &specimen::parties(), &specimen::owner(), &Wish::Totp, &[])
                .expect("a set-up")
        };
        let (one, other) = (begin(), begin());
        let kept = one.secret.expect("a secret");
        assert_eq!((kept.len(), one.details), (SECRET, Details::Totp));
        assert_ne!(Some(kept.as_slice()), other.secret.as_deref().map(Vec::as_slice));
        let Shown::Totp { secret, .. } = &one.shown else { unreachable!("a TOTP set-up") };
        assert_eq!(Secret::try_from_base32(secret.as_str()).expect("base32"), Secret::from(kept.as_slice()));
        assert!(one.state.is_none() && one.text.is_none());
    }

    /// T-08: the first code of an app spends its step.
    #[test]
    fn the_first_code_of_an_app_spends_its_step() {
        let step = NOW.seconds() / PERIOD;
        let finish = |held, answer| Totp.finish_enrolment(&exam(held, None, answer));
        let right = code_at(RFC_SECRET, NOW);
        let enrolled = finish(vec![app(2, RFC_SECRET, 0)], code(&right)).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!((enrolled.last_step, enrolled.details), (step, Details::Totp));
        assert!(enrolled.secret.is_none() && enrolled.credential_id.is_none());
        let refused = |held, answer| finish(held, answer).map(drop);
        let wrong = if right == "000000" { "000001" } else { "000000" };
        assert_eq!(refused(vec![app(2, RFC_SECRET, 0)], code(wrong)), Err(Refusal::Wrong(Fault::Code)));
        assert_eq!(refused(vec![app(2, RFC_SECRET, 0)], code("12345")), Err(Refusal::Malformed));
        assert_eq!(refused(vec![app(2, RFC_SECRET, 0)], specimen::credential()), Err(Refusal::Malformed));
        assert_eq!(refused(Vec::new(), code(&right)), Err(Refusal::NotAllowed));
    }

    /// T-08, T-09: a step that was spent, or one before it, is a replay; another app's code is its own.
    #[test]
    fn a_step_is_good_once_and_for_its_own_app() {
        const OTHER: &[u8] = b"09876543210987654321";
        let step = NOW.seconds() / PERIOD;
        let verify = |held, text: &str| match Totp.verify(&exam(held, None, code(text))) {
            Ok(Proven { spent: Spent::Step { factor, step }, evidence }) => {
                assert_eq!(evidence, Evidence::of_code(Channel::AuthenticatorApp));
                Ok((factor, step))
            }
            Ok(_) => unreachable!("a step is what an app's code uses up"),
            Err(refusal) => Err(refusal),
        };
        let id = |number| app(number, RFC_SECRET, 0).factor.id;
        let (now, before) = (code_at(RFC_SECRET, NOW), code_at(RFC_SECRET, NOW.plus_seconds(-PERIOD)));
        assert_eq!(verify(vec![app(2, RFC_SECRET, step - 1)], &now), Ok((id(2), step)));
        assert_eq!(verify(vec![app(2, RFC_SECRET, step - 2)], &before), Ok((id(2), step - 1)));
        assert_eq!(verify(vec![app(2, RFC_SECRET, step)], &now), Err(Refusal::Replayed));
        assert_eq!(verify(vec![app(2, RFC_SECRET, step - 1)], &before), Err(Refusal::Replayed));
        assert_eq!(verify(vec![app(2, RFC_SECRET, step), app(3, OTHER, 0)], &code_at(OTHER, NOW)), Ok((id(3), step)));
        assert_eq!(verify(vec![app(2, OTHER, 0)], &now), Err(Refusal::Wrong(Fault::Code)));
        assert_eq!(verify(Vec::new(), &now), Err(Refusal::Wrong(Fault::Code)));
        assert_eq!(verify(vec![app(2, RFC_SECRET, 0)], "nonsense"), Err(Refusal::Malformed));
    }

    #[test]
    fn only_six_digits_have_the_form_of_a_code() {
        assert_eq!(Totp.check_form(&code("123 456")), Ok(()));
        assert_eq!(Totp.check_form(&code("12345")), Err(Refusal::Malformed));
        assert_eq!(Totp.check_form(&specimen::credential()), Err(Refusal::Malformed));
    }

    /// T-16: what could lead a reader of the label astray is left out, and nothing else.
    #[test]
    fn names_are_plain_and_bounded() {
        assert_eq!(named("  Acme: Bank\u{0}\n "), "Acme  Bank");
        assert_eq!(named("a\u{202a}b\u{202e}c\u{2066}d\u{2069}e\u{2029}"), "abcde");
        assert_eq!(named("\u{2029}\u{202f}\u{2065}\u{206a}x"), "\u{2065}\u{206a}x");
        assert_eq!(named(&"é".repeat(99)).chars().count(), LONGEST_NAME);
        assert_eq!((named(" : "), named("")), ("-".to_owned(), "-".to_owned()));
    }

    /// The picture holds each module of the symbol where it belongs, inside a quiet zone of four.
    #[test]
    fn the_picture_is_the_symbol() {
        let text = "otpauth://totp/Bank:ann?secret=77777777&issuer=Bank";
        let symbol = QrCode::with_error_correction_level(text, EcLevel::M).expect("it fits");
        let svg = qr_svg(text);
        let (width, size) = (symbol.width(), symbol.width() + 8);
        assert!(svg.contains(&format!("viewBox=\"0 0 {size} {size}\"")), "{svg}");
        let path = svg.split("fill=\"#000\" d=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a path");
        let mut drawn = vec![Color::Light; width * width];
        for piece in path.split_terminator('z') {
            let (place, run) = piece.strip_prefix('M').and_then(|p| p.split_once('h')).expect("a run");
            let (x, y) = place.split_once(' ').expect("a place");
            let (run, back) = run.split_once("v1h-").expect("a rectangle");
            assert_eq!(run, back, "{piece}");
            let number = |text: &str| text.parse::<usize>().expect("a number");
            for x in number(x)..number(x) + number(run) {
                drawn[(number(y) - 4) * width + x - 4] = Color::Dark;
            }
        }
        assert_eq!(drawn, symbol.to_colors());
    }

    /// T-01, T-02, T-14, T-15.
    #[test]
    fn the_address_has_the_form_that_apps_read() {
        let Shown::Totp { otpauth_uri, secret, .. } =
            set_up(&parties("Acme: Bank", "ann@example.com"), &[0xff; SECRET])
        else {
            unreachable!("a TOTP set-up")
        };
        assert_eq!(secret.as_str(), "7".repeat(32));
        let url = url::Url::parse(&otpauth_uri).expect("an address");
        assert_eq!((url.scheme(), url.host_str()), ("otpauth", Some("totp")));
        assert_eq!(url.path(), "/Acme%20%20Bank:ann%40example.com");
        let pairs: Vec<_> = url.query_pairs().collect();
        assert!(pairs.contains(&("issuer".into(), "Acme  Bank".into())), "{pairs:?}");
        assert!(pairs.contains(&("secret".into(), "7".repeat(32).into())), "{pairs:?}");
    }
}
