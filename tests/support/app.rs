//! An authenticator app, by hand: the engine must agree with the standards, not with its own crates.

#![allow(dead_code, reason = "each test binary uses its own part")]

use aws_lc_rs::hmac;

/// RFC 6238 with SHA-1, six digits and 30 seconds.
pub fn totp(secret: &[u8], step: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[19] & 0x0f);
    let number = u32::from_be_bytes([tag[at] & 0x7f, tag[at + 1], tag[at + 2], tag[at + 3]]);
    format!("{:06}", number % 1_000_000)
}

/// RFC 4648, 6, without padding; pages show it in groups.
pub fn base32(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.bytes().filter(|b| *b != b' ') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => panic!("{text} is no base32"),
        };
        bits = bits << 5 | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}

/// The step of 30 seconds so many seconds from now, by the machine's clock.
pub fn step(ahead: i64) -> i64 {
    (countersign::clock::Clock::now(&countersign::clock::SystemClock).seconds() + ahead).div_euclid(30)
}

/// The present step, with most of it left: the code of the step before counts for as long.
pub async fn early_step() -> i64 {
    use countersign::clock::Clock;
    while countersign::clock::SystemClock.now().seconds() % 30 >= 12 {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    step(0)
}
