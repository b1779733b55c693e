//! Recovery codes: ten codes of 80 random bits that a person keeps, each good once, in any order.
//! One Argon2id evaluation judges a code, because the whole set shares a salt; codes cannot be guessed, so they are limited for CPU only.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Answer, Exam, Fault, Method, Proven, Refusal, Spent, loosened};
use crate::model::{Channel, Evidence, Keyed, Moment};

/// Codes of a set.
pub const COUNT: usize = 10;
/// Characters of a code, without its dashes.
const LENGTH: usize = 16;
/// Bytes of a set's salt.
pub const SALT: usize = 16;
/// Crockford's base 32: no I, L, O or U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The method.
pub struct RecoveryCode;

impl Method for RecoveryCode {
    fn check_form(&self, answer: &Answer) -> Result<(), Refusal> {
        normalised(answer.code()?).map(drop)
    }

    /// A used code and one that never was are the same "wrong": no oracle.
    fn verify(&self, exam: &Exam) -> Result<Proven, Refusal> {
        let code = normalised(exam.answer.code()?)?;
        let set = exam.recovery.as_ref().ok_or(Refusal::Wrong(Fault::Code))?;
        let hash = exam.keyed.slow_hash(set.pepper, &set.salt, code.as_bytes()).ok_or(Refusal::Wrong(Fault::Code))?;
        let mut found = None;
        for unused in &set.unused {
            if bool::from(unused.as_slice().ct_eq(&hash)) {
                found = Some(unused.clone());
            }
        }
        let hash = found.ok_or(Refusal::Wrong(Fault::Code))?;
        Ok(Proven {
            spent: Spent::RecoveryCode { set: set.id.clone(), hash },
            evidence: Evidence::of_code(Channel::RecoveryCode),
        })
    }

    fn is_costly(&self) -> bool {
        true
    }
}

/// The codes of a new set as people see them, in four groups of four.
pub fn new_codes(at: &Moment<'_>) -> Vec<Zeroizing<String>> {
    (0..COUNT)
        .map(|_| {
            let code: Vec<u8> = (0..LENGTH).map(|_| ALPHABET[at.below(32) as usize]).collect();
            let groups: Vec<_> =
                code.chunks(4).map(|g| std::str::from_utf8(g).expect("the alphabet is ASCII")).collect();
            Zeroizing::new(groups.join("-"))
        })
        .collect()
}

/// The hash under which a code is kept. Costly: some ten milliseconds.
pub fn hash(keyed: &dyn Keyed, pepper: i64, salt: &[u8], code: &str) -> Option<[u8; 32]> {
    let code = normalised(code).ok()?;
    keyed.slow_hash(pepper, salt, code.as_bytes())
}

/// Upper case without spaces and dashes, look-alikes read as what was meant (requirement R-11).
fn normalised(text: &str) -> Result<Zeroizing<String>, Refusal> {
    let code: String = loosened(text)
        .map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect();
    let good = code.len() == LENGTH && code.bytes().all(|b| ALPHABET.contains(&b));
    good.then(|| Zeroizing::new(code)).ok_or(Refusal::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::methods::specimen::{self, OpenKeys, exam, recovery_set};
    use crate::model::Timestamp;

    ///
    #[test]
    fn a_set_is_ten_distinct_codes_of_eighty_bits() {
        let codes = new_codes(&Moment::new(Timestamp(0), &SystemRng));
        let distinct: std::collections::HashSet<_> = codes.iter().map(|c| c.to_string()).collect();
        assert_eq!(distinct.len(), COUNT);
        for code in &codes {
            let groups: Vec<_> = code.split('-').collect();
            assert_eq!(groups.iter().map(|g| g.len()).collect::<Vec<_>>(), [4, 4, 4, 4]);
            assert!(code.bytes().all(|b| b == b'-' || ALPHABET.contains(&b)));
        }
    }

    ///
    #[test]
    fn case_spaces_dashes_and_look_alikes_do_not_matter() {
        let meant = normalised("0123-4567-89AB-CD1F").expect("a code");
        for typed in [
            "0123456789abcd1f",
            " o123 4567 89ab cdlf ",
            "O123–4567–89AB–CDIF",
            "0123-4567-89AB-CD1F\n",
            "#0123-4567-89AB-CD1F",
            "０123-4567-89AB-CD1F",
        ] {
            assert_eq!(normalised(typed).expect("a code"), meant, "{typed}");
        }
    }

    #[test]
    fn what_is_no_code_is_malformed() {
        for bad in ["", "0123", "0123-4567-89AB-CDEU", "0123-4567-89AB-CDEF-0", "0123-4567-89AB-CDÉF", "123456"] {
            assert!(normalised(bad).is_err(), "{bad}");
        }
    }

    /// each code of the set is right whichever it is; one that is gone and one that never was are alike.
    #[test]
    fn a_code_of_the_set_is_right_and_says_which_it_was() {
        let (one, two) = ("0123456789ABCDEF", "FEDCBA9876543210");
        let verify = |set: Option<&[&str]>, answer| {
            let recovery = set.map(recovery_set);
            match RecoveryCode.verify(&Exam { recovery, ..exam(Vec::new(), None, answer) }) {
                Ok(Proven { spent: Spent::RecoveryCode { set, hash }, evidence }) => {
                    assert_eq!((set, evidence), (recovery_set(&[]).id, Evidence::of_code(Channel::RecoveryCode)));
                    Ok(hash)
                }
                Ok(_) => unreachable!("a code is what is used up"),
                Err(refusal) => Err(refusal),
            }
        };
        let hashed = |code| hash(&OpenKeys, 1, b"salt", code).expect("a pepper that is known").to_vec();
        for code in [one, two] {
            assert_eq!(verify(Some(&[one, two]), specimen::code(code)), Ok(hashed(code)));
        }
        let wrong = Err(Refusal::Wrong(Fault::Code));
        assert_eq!(verify(Some(&[two]), specimen::code(one)), wrong);
        assert_eq!(verify(Some(&[]), specimen::code(one)), wrong);
        assert_eq!(verify(None, specimen::code(one)), wrong);
        assert_eq!(verify(Some(&[one]), specimen::code("0123")), Err(Refusal::Malformed));
        assert_eq!(verify(Some(&[one]), specimen::credential()), Err(Refusal::Malformed));
        assert_eq!(hash(&OpenKeys, 2, b"salt", one), None, "no pepper of that number");
        assert_eq!(hash(&OpenKeys, 1, b"salt", "0123"), None);
    }

    #[test]
    fn sixteen_letters_of_the_alphabet_have_the_form_of_a_code() {
        assert_eq!(RecoveryCode.check_form(&specimen::code("0123-4567-89AB-CDEF")), Ok(()));
        assert_eq!(RecoveryCode.check_form(&specimen::code("0123-4567-89AB-CDE")), Err(Refusal::Malformed));
        assert_eq!(RecoveryCode.check_form(&specimen::credential()), Err(Refusal::Malformed));
    }
}
