//! Bytes as hexadecimal digits, and back.

/// Two lower-case digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that such digits stand for, if that is what they are.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |d: u8| char::from(d).to_digit(16).map(|d| d as u8);
    let (pairs, odd) = digits.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    odd.is_empty().then(|| bytes.collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_and_nothing_else() {
        assert_eq!(unhex(&hex(&[0, 0xaf, 0xff])), Some(vec![0, 0xaf, 0xff]));
        assert_eq!((unhex(""), unhex("AF")), (Some(vec![]), Some(vec![0xaf])));
        for other in ["a", "0g", "+f", "f ", "0x", "\u{e9}"] {
            assert_eq!(unhex(other), None, "{other}");
        }
    }
}
