//! Codes of an authenticator app (RFC 6238): 160-bit secret, SHA-1, 6 digits, 30 seconds.
//! A code of this step or the one before is right, a future one never; a step is spent by the row that the engine moves on.

use qrcode::{Color, EcLevel, QrCode};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use totp_rs::{Builder, Secret};
use zeroize::Zeroizing;

use super::{
    Answer, Begun, Enrolled, Exam, Fault, Held, Method, Parties, Proven, Refusal, Shown, Spent, Wish, six_digits,
};
use crate::model::{Channel, Details, Evidence, Id, Keyed, MethodKind, Moment, Timestamp};

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
    fn kind(&self) -> MethodKind {
        MethodKind::Totp
    }

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
        let step =
            matching_step(&pending.secret, &six_digits(exam.code()?)?, exam.now).ok_or(Refusal::Wrong(Fault::Code))?;
        Ok(Enrolled { details: Details::Totp, secret: None, credential_id: None, last_step: step })
    }

    fn check_form(&self, answer: &Answer) -> Result<(), Refusal> {
        match answer {
            Answer::Code(code) => six_digits(code).map(drop),
            Answer::Credential(_) => Err(Refusal::Malformed),
        }
    }

    fn verify(&self, exam: &Exam) -> Result<Proven, Refusal> {
        let code = six_digits(exam.code()?)?;
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

/// A name fit for a label: without the colon that separates issuer and account, without control characters, not too long.
fn named(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c == ':' { ' ' } else { c })
        .filter(|c| !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
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
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size} {size}\" role=\"img\" aria-label=\"QR code that holds the setup key\" shape-rendering=\"crispEdges\"><path fill=\"#fff\" d=\"M0 0h{size}v{size}H0z\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
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
        use crate::model::{Kind, Mode, RelyingParty, User};
        let now = Timestamp(0);
        Parties {
            rp: std::sync::Arc::new(RelyingParty {
                id: Id::from_bytes(Kind::RelyingParty, [1; 16]),
                name: issuer.to_owned(),
                host: "localhost".to_owned(),
                mode: Mode::Test,
                origins: Vec::new(),
                return_urls: Vec::new(),
                created_at: now,
            }),
            origins: Vec::new(),
            user: User {
                user_id: "u".to_owned(),
                handle: [0; 16],
                display_name: None,
                login_hint: Some(account.to_owned()),
                locale: None,
                created_at: now,
            },
            purpose: String::new(),
        }
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
