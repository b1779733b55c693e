//! International bank account numbers (ISO 13616): their form and check digits.

/// Reads an IBAN as people write it; without spaces, in capitals.
pub fn parse(text: &str) -> Option<String> {
    let iban: String = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_uppercase()).collect();
    let shaped = (15..=34).contains(&iban.len())
        && iban.bytes().all(|b| b.is_ascii_alphanumeric())
        && iban.bytes().take(2).all(|b| b.is_ascii_uppercase())
        && iban.bytes().skip(2).take(2).all(|b| b.is_ascii_digit());
    (shaped && remainder(&iban) == 1).then_some(iban)
}

/// In groups of four, as it is printed.
pub fn groups(iban: &str) -> String {
    let signs: Vec<char> = iban.chars().collect();
    signs.chunks(4).map(String::from_iter).collect::<Vec<_>>().join(" ")
}

/// ISO 7064, MOD 97-10, over the number with its first four signs at the end and letters as 10 to 35.
fn remainder(iban: &str) -> u32 {
    let (head, body) = iban.split_at(4);
    body.chars().chain(head.chars()).filter_map(|c| c.to_digit(36)).fold(0, |rest, digit| {
        let shift = if digit < 10 { 10 } else { 100 };
        (rest * shift + digit) % 97
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iban_is_read_with_spaces_and_small_letters() {
        assert_eq!(parse(" de89 3704 0044 0532 0130 00 ").as_deref(), Some("DE89370400440532013000"));
        assert_eq!(parse("FR14 2004 1010 0505 0001 3M02 606").as_deref(), Some("FR1420041010050500013M02606"));
        assert_eq!(groups("NL91ABNA0417164300"), "NL91 ABNA 0417 1643 00");
    }

    #[test]
    fn a_mistyped_iban_is_refused() {
        for text in [
            "",
            "DE89370400440532013001",
            "DE98370400440532013000",
            "89DE370400440532013000",
            "DE89",
            "DÉ8937040044053201300",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
