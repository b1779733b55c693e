//! The core that codes which are sent have in common, whatever carries them: six digits, bound to the one who asked, kept as a keyed hash.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Fault, Refusal};
use crate::model::{Id, Keyed, Moment};

/// How long a code that was sent counts, in seconds (NIST SP 800-63B 3.1.3.2: at most ten minutes).
pub const LIFE: i64 = 600;

/// A new code and the state that recognises it.
pub fn issue(at: &Moment<'_>, keyed: &dyn Keyed, owner: &Id) -> (Zeroizing<String>, Zeroizing<Vec<u8>>) {
    let code = Zeroizing::new(format!("{:06}", at.below(1_000_000)));
    let state = hash(keyed, owner, &code);
    (code, Zeroizing::new(state.to_vec()))
}

/// Whether this is the code that was sent for this owner.
pub fn judge(keyed: &dyn Keyed, owner: &Id, state: Option<&[u8]>, code: &str) -> Result<(), Refusal> {
    let state = state.ok_or(Refusal::Expired)?;
    let same = bool::from(state.ct_eq(&hash(keyed, owner, code)));
    same.then_some(()).ok_or(Refusal::Wrong(Fault::Code))
}

/// E-06: a plain hash of six digits would be undone at once.
fn hash(keyed: &dyn Keyed, owner: &Id, code: &str) -> [u8; 32] {
    keyed.keyed_hash("delivered-code", &[owner.as_str().as_bytes(), code.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::model::{Kind, Timestamp};
    use crate::vault::MasterKey;

    /// P-01, A-08: six digits, each as frequent as any other at each place, and hardly a code twice.
    #[test]
    fn codes_are_uniform_over_six_digits() {
        let at = Moment::new(Timestamp(0), &SystemRng);
        let master = MasterKey::generate(&at);
        let vault = crate::vault::Vault::new(&master, &master.new_ring(&at)).expect("its own ring");
        let owner = Id::new(Kind::Challenge, &at);
        let (mut places, mut codes) = ([[0u32; 10]; 6], std::collections::HashSet::new());
        for _ in 0..10_000 {
            let (code, _) = issue(&at, &vault, &owner);
            assert_eq!(code.len(), 6);
            for (place, digit) in places.iter_mut().zip(code.bytes()) {
                place[usize::from(digit - b'0')] += 1;
            }
            codes.insert(code.to_string());
        }
        // 1,000 expected each, standard deviation 30: seven of them never occur by chance.
        assert!(places.iter().flatten().all(|n| (790..1210).contains(n)), "{places:?}");
        // 50 repetitions expected, standard deviation 7.
        assert!(codes.len() > 9_900, "{} different codes", codes.len());
    }

    /// P-04.
    #[test]
    fn a_code_counts_for_the_one_it_was_sent_for() {
        let at = Moment::new(Timestamp(0), &SystemRng);
        let master = MasterKey::generate(&at);
        let vault = crate::vault::Vault::new(&master, &master.new_ring(&at)).expect("its own ring");
        let (mine, other) = (Id::new(Kind::Challenge, &at), Id::new(Kind::Challenge, &at));
        let (code, state) = issue(&at, &vault, &mine);
        assert_eq!(judge(&vault, &mine, Some(&state), &code), Ok(()));
        assert_eq!(judge(&vault, &other, Some(&state), &code), Err(Refusal::Wrong(Fault::Code)));
        assert_eq!(judge(&vault, &mine, None, &code), Err(Refusal::Expired));
    }

    /// E-01, E-06: there are a million codes, so what is kept of one depends on a key that does not stand beside it.
    #[test]
    fn what_is_kept_of_a_code_depends_on_the_key() {
        let at = Moment::new(Timestamp(0), &SystemRng);
        let vault = || {
            let master = MasterKey::generate(&at);
            crate::vault::Vault::new(&master, &master.new_ring(&at)).expect("its own ring")
        };
        let (one, two) = (vault(), vault());
        let owner = Id::new(Kind::Challenge, &at);
        let (code, state) = issue(&at, &one, &owner);
        assert_eq!(state.as_slice(), hash(&one, &owner, &code).as_slice());
        assert_ne!(hash(&one, &owner, &code), hash(&two, &owner, &code));
        assert_eq!(judge(&two, &owner, Some(&state), &code), Err(Refusal::Wrong(Fault::Code)));
        assert_eq!(judge(&one, &owner, Some(&state), &code), Ok(()));
    }
}
