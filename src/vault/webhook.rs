//! The secrets that sign webhooks, and what they sign (Standard Webhooks 1.0.0). Who is told what is not known here.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::model::{Moment, Timestamp};

/// What a secret's text begins with.
const PREFIX: &str = "whsec_";
/// How long the secret before signs along, in seconds.
const OVERLAP: i64 = 86_400;

/// The secrets of one endpoint: one that signs, and the one before it for a day.
pub struct WebhookSecrets {
    current: Zeroizing<String>,
    former: Option<(Zeroizing<String>, Timestamp)>,
}

impl WebhookSecrets {
    /// The first one: `whsec_` and 32 random bytes in base64.
    pub fn first(at: &Moment<'_>) -> WebhookSecrets {
        let bytes = Zeroizing::new(at.random::<32>());
        WebhookSecrets { current: Zeroizing::new(format!("{PREFIX}{}", BASE64_STANDARD.encode(*bytes))), former: None }
    }

    /// A new one beside the present one, which signs along for a day; one that was older signs no more.
    pub fn rotated(self, at: &Moment<'_>) -> WebhookSecrets {
        let former = Some((self.current, at.now.plus_seconds(OVERLAP)));
        WebhookSecrets { former, ..WebhookSecrets::first(at) }
    }

    /// The text that a receiver verifies with.
    pub fn text(&self) -> &str {
        &self.current
    }

    /// As they are kept, to be sealed.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let former = self.former.as_ref().map(|(secret, until)| Zeroizing::new(format!(" {} {}", **secret, until.0)));
        Zeroizing::new([self.current.as_bytes(), former.as_ref().map_or(&[], |f| f.as_bytes())].concat())
    }

    /// Reads what [`WebhookSecrets::to_bytes`] wrote.
    pub fn read(bytes: &[u8]) -> Option<WebhookSecrets> {
        let mut words = std::str::from_utf8(bytes).ok()?.split(' ');
        let current = Zeroizing::new(words.next().filter(|w| key(w).is_some())?.to_owned());
        let former = match (words.next(), words.next()) {
            (Some(secret), Some(until)) => Some((Zeroizing::new(secret.to_owned()), Timestamp(until.parse().ok()?))),
            _ => None,
        };
        Some(WebhookSecrets { current, former })
    }

    /// The value of `webhook-signature`: one signature for each secret that signs now, with a space between them.
    pub fn sign(&self, now: Timestamp, id: &str, timestamp: i64, body: &[u8]) -> String {
        let former = self.former.as_ref().filter(|(_, until)| now < *until).map(|(secret, _)| secret);
        let all = std::iter::once(&self.current).chain(former);
        all.filter_map(|secret| signature(secret, id, timestamp, body)).collect::<Vec<_>>().join(" ")
    }
}

/// `v1,` and the HMAC-SHA-256 of id, timestamp and body in base64; `None` where the secret does not read.
pub fn signature(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key(secret)?));
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    Some(format!("v1,{}", BASE64_STANDARD.encode(context.sign().as_ref())))
}

fn key(secret: &str) -> Option<Zeroizing<Vec<u8>>> {
    let key = BASE64_STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
    Some(Zeroizing::new(key)).filter(|key| (24..=64).contains(&key.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;

    fn at(seconds: i64) -> Moment<'static> {
        Moment::new(Timestamp::from_seconds(seconds), &SystemRng)
    }

    /// H-03.
    #[test]
    fn a_secret_is_32_random_bytes_and_unlike_any_other() {
        let (one, two) = (WebhookSecrets::first(&at(0)), WebhookSecrets::first(&at(0)));
        assert_eq!(key(one.text()).map(|k| k.len()), Some(32));
        assert_ne!(one.text(), two.text());
    }

    /// H-02, by the example of the specification's own libraries.
    #[test]
    fn the_published_example_is_signed_alike() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert_eq!(signature("whsec_AAAA", "msg_1", 0, b""), None, "too short a key");
        assert_eq!(signature(&secret[6..], "msg_1", 0, b""), None, "without its prefix");
    }

    /// H-04: two at most, and the former for a day.
    #[test]
    fn the_secret_before_signs_along_for_a_day() {
        let first = WebhookSecrets::first(&at(0));
        let old = first.text().to_owned();
        let second = first.rotated(&at(100));
        let kept = WebhookSecrets::read(&second.to_bytes()).expect("it reads");
        let by_old = signature(&old, "evt_1", 7, b"{}").expect("a signature");
        let by_new = signature(kept.text(), "evt_1", 7, b"{}").expect("a signature");
        let sign = |secrets: &WebhookSecrets, seconds| secrets.sign(at(seconds).now, "evt_1", 7, b"{}");
        assert_eq!(sign(&kept, 100 + OVERLAP - 1), format!("{by_new} {by_old}"));
        assert_eq!(sign(&kept, 100 + OVERLAP), by_new);
        let third = kept.rotated(&at(200));
        let signed = sign(&third, 201);
        assert!(signed.split(' ').count() == 2 && !signed.contains(&by_old) && signed.contains(&by_new));
    }

    #[test]
    fn what_was_not_written_so_does_not_read() {
        for bytes in [&b""[..], b"whsec_", b"whsec_AAAA", b"\xff", b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw a b"] {
            assert!(WebhookSecrets::read(bytes).is_none(), "{bytes:?}");
        }
    }
}
