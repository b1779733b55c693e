//! How audit events are chained, and what a chain tells of itself when it is read back. Pure: rows in, hashes and findings out.
//!
//! Each hash covers the one before it, the event's number and everything that is kept of it. Whom it tells of is covered by a
//! salted digest: when a user is erased, name, client and salt go, and the hash still fits.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::model::{ChainHead, Id, Keyed, Link, Moment, Recorded, Timestamp, named};

/// The kind of the event that tells of an erasure, under the pseudonym that stands in the user's place from then on.
pub const ERASED: &str = "user.erased";
/// What stands before the first event.
const START: [u8; 32] = [0; 32];

/// Something that is not as the engine wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// At which number.
    pub sequence: i64,
    /// Which event, where it is one.
    pub event: Option<Id>,
    /// What is wrong.
    pub fault: Fault,
}

named! {
    /// What can be wrong with a chain.
    pub enum Fault {
        /// The event is not what was sealed, or stands in another one's place.
        Changed = "changed",
        /// Events from here to the next that is there are gone.
        Missing = "missing",
        /// The events at the end are gone, this one first.
        TailCut = "tail_cut",
        /// The chain's end was not written by an engine with this key ring.
        HeadForged = "head_forged",
        /// The user was made unrecognisable, and no event tells of an erasure.
        Disguised = "disguised",
        /// The chain does not hold the checkpoint that was remembered.
        CheckpointLost = "checkpoint_lost",
    }
}

/// Numbers these events behind the end of their chain; gives the new end.
pub fn extend(
    at: &Moment<'_>,
    keyed: &dyn Keyed,
    head: Option<&ChainHead>,
    rp: &Id,
    events: &mut [Recorded],
) -> ChainHead {
    let mut sequence = head.map_or(0, |head| head.sequence);
    let mut hash = head.map_or(START.to_vec(), |head| head.hash.clone());
    for event in events {
        sequence += 1;
        let salt = at.random::<16>().to_vec();
        let person = person(&salt, event);
        hash = link_hash(&hash, sequence, &person, event);
        event.link = Some(Link { sequence, salt: Some(salt), person, hash: hash.clone() });
    }
    let mac = head_mac(keyed, rp, sequence, &hash, at.now);
    ChainHead { rp_id: rp.clone(), sequence, hash, sealed_at: at.now, mac }
}

/// Whether an engine with this key ring wrote this end of a chain.
pub fn is_own(keyed: &dyn Keyed, head: &ChainHead) -> bool {
    let mac = head_mac(keyed, &head.rp_id, head.sequence, &head.hash, head.sealed_at);
    subtle::ConstantTimeEq::ct_eq(mac.as_slice(), head.mac.as_slice()).into()
}

/// Reads a chain from its start and gathers what is wrong with it.
pub struct Examiner {
    next: i64,
    previous: Vec<u8>,
    disguises: Vec<(String, Finding)>,
    erasures: HashSet<String>,
    checkpoint: Option<(i64, Vec<u8>)>,
    findings: Vec<Finding>,
}

impl Examiner {
    /// Before the first event. The checkpoint is a number and hash that were told earlier and must still be there.
    pub fn new(checkpoint: Option<(i64, Vec<u8>)>) -> Examiner {
        Examiner {
            next: 1,
            previous: START.to_vec(),
            disguises: Vec::new(),
            erasures: HashSet::new(),
            checkpoint,
            findings: Vec::new(),
        }
    }

    /// The next event, in the order of numbers.
    pub fn see(&mut self, event: &Recorded) {
        let Some(link) = &event.link else { return };
        if link.sequence > self.next {
            self.find(self.next, None, Fault::Missing);
        }
        // Behind a gap the hash before is not known: the finding is told already.
        let follows = link.sequence == self.next;
        let fits = link.hash == link_hash(&self.previous, link.sequence, &link.person, event);
        let shows = match &link.salt {
            Some(salt) => link.person == person(salt, event),
            None => event.client.is_none(),
        };
        if (follows && !fits) || !shows {
            self.find(link.sequence, Some(&event.id), Fault::Changed);
        }
        if event.kind == ERASED {
            self.erasures.extend(event.user_id.clone());
        }
        if link.salt.is_none() {
            let finding = Finding { sequence: link.sequence, event: Some(event.id.clone()), fault: Fault::Disguised };
            self.disguises.push((event.user_id.clone().unwrap_or_default(), finding));
        }
        self.checkpoint.take_if(|(sequence, hash)| *sequence == link.sequence && *hash == link.hash);
        self.next = link.sequence + 1;
        self.previous = link.hash.clone();
    }

    /// The end: what was kept of it, the highest number that was there before, and erasures that have no number yet.
    pub fn end(
        mut self,
        keyed: &dyn Keyed,
        head: Option<&ChainHead>,
        highest: i64,
        young_erasures: &[String],
    ) -> Vec<Finding> {
        let last = self.next - 1;
        let kept = head.map_or(0, |head| head.sequence);
        if kept > last {
            self.find(self.next, None, Fault::TailCut);
        }
        let ends_here = head.is_none_or(|head| head.sequence != last || head.hash == self.previous);
        if highest > kept || head.is_some_and(|head| !is_own(keyed, head)) || !ends_here {
            self.find(kept, None, Fault::HeadForged);
        }
        if let Some((sequence, _)) = self.checkpoint.take() {
            self.find(sequence, None, Fault::CheckpointLost);
        }
        self.erasures.extend(young_erasures.iter().cloned());
        let unexplained = self.disguises.into_iter().filter(|(name, _)| !self.erasures.contains(name));
        self.findings.extend(unexplained.map(|(_, finding)| finding));
        self.findings
    }

    fn find(&mut self, sequence: i64, event: Option<&Id>, fault: Fault) {
        self.findings.push(Finding { sequence, event: event.cloned(), fault });
    }
}

fn person(salt: &[u8], event: &Recorded) -> Vec<u8> {
    let mut hash = Fields::new("countersign audit person 1");
    hash.add(Some(salt));
    hash.add(event.user_id.as_ref().map(String::as_bytes));
    hash.add(event.client.as_ref().map(String::as_bytes));
    hash.end()
}

fn link_hash(previous: &[u8], sequence: i64, person: &[u8], event: &Recorded) -> Vec<u8> {
    let mut hash = Fields::new("countersign audit event 1");
    hash.add(Some(previous));
    hash.add(Some(&sequence.to_be_bytes()));
    hash.add(Some(&event.at.0.to_be_bytes()));
    hash.add(Some(person));
    for text in [event.rp_id.as_str(), event.id.as_str(), &event.kind, &event.actor, &event.outcome] {
        hash.add(Some(text.as_bytes()));
    }
    let rest =
        [&event.method, &event.factor_id, &event.challenge_id, &event.session_id, &event.reason, &event.request_id];
    for text in rest {
        hash.add(text.as_ref().map(String::as_bytes));
    }
    hash.end()
}

fn head_mac(keyed: &dyn Keyed, rp: &Id, sequence: i64, hash: &[u8], sealed_at: Timestamp) -> Vec<u8> {
    let parts: [&[u8]; 4] = [rp.as_str().as_bytes(), &sequence.to_be_bytes(), hash, &sealed_at.0.to_be_bytes()];
    keyed.keyed_hash("audit-chain-head", &parts).to_vec()
}

/// A digest over fields that cannot run together, in which nothing and an empty text differ.
struct Fields(Sha256);

impl Fields {
    fn new(label: &str) -> Fields {
        let mut fields = Fields(Sha256::new());
        fields.add(Some(label.as_bytes()));
        fields
    }

    fn add(&mut self, field: Option<&[u8]>) {
        let length = field.map_or(u64::MAX, |bytes| bytes.len() as u64);
        self.0.update(length.to_be_bytes());
        self.0.update(field.unwrap_or_default());
    }

    fn end(self) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::model::Kind;
    use crate::vault::{MasterKey, Vault};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn at() -> Moment<'static> {
        Moment::new(NOW, &SystemRng)
    }

    fn vault() -> Vault {
        let master = MasterKey::generate(&at());
        Vault::new(&master, &master.new_ring(&at())).expect("its own ring")
    }

    fn event(rp: &Id, user: &str) -> Recorded {
        Recorded {
            rp_id: rp.clone(),
            id: Id::new(Kind::Event, &at()),
            at: NOW,
            kind: "verification.failed".to_owned(),
            actor: "server".to_owned(),
            user_id: Some(user.to_owned()),
            method: Some("totp".to_owned()),
            factor_id: Some("fac_1".to_owned()),
            challenge_id: Some("chl_1".to_owned()),
            session_id: None,
            outcome: "failure".to_owned(),
            reason: Some("code_incorrect".to_owned()),
            client: Some("{\"ip\":\"192.0.2.1\"}".to_owned()),
            request_id: Some("req_1".to_owned()),
            link: None,
        }
    }

    /// A chain of five, in two batches.
    fn chain(vault: &Vault) -> (Vec<Recorded>, ChainHead) {
        let rp = Id::new(Kind::RelyingParty, &at());
        let mut events: Vec<_> = ["ann", "bob", "ann", "cid", "ann"].map(|user| event(&rp, user)).into();
        let (first, second) = events.split_at_mut(2);
        let head = extend(&at(), vault, None, &rp, first);
        let head = extend(&at(), vault, Some(&head), &rp, second);
        (events, head)
    }

    fn faults(vault: &Vault, events: &[Recorded], head: Option<&ChainHead>) -> Vec<(i64, Fault)> {
        let mut examiner = Examiner::new(None);
        events.iter().for_each(|event| examiner.see(event));
        let highest = events.iter().filter_map(|e| Some(e.link.as_ref()?.sequence)).max().unwrap_or_default();
        examiner.end(vault, head, highest, &[]).into_iter().map(|f| (f.sequence, f.fault)).collect()
    }

    fn link(event: &mut Recorded) -> &mut Link {
        event.link.as_mut().expect("it is chained")
    }

    #[test]
    fn an_untouched_chain_is_whole() {
        let vault = vault();
        let (events, head) = chain(&vault);
        assert_eq!(faults(&vault, &events, Some(&head)), []);
        let numbers: Vec<_> = events.iter().filter_map(|e| Some(e.link.as_ref()?.sequence)).collect();
        assert_eq!((numbers, head.sequence), (vec![1, 2, 3, 4, 5], 5));
    }

    /// L-05.
    #[test]
    fn every_column_is_covered() {
        let vault = vault();
        let (events, head) = chain(&vault);
        type Change = fn(&mut Recorded);
        let changes: [Change; 16] = [
            |e| e.id = Id::new(Kind::Event, &at()),
            |e| e.at = Timestamp(0),
            |e| e.kind = "verification.succeeded".to_owned(),
            |e| e.actor = "user".to_owned(),
            |e| e.user_id = Some("eve".to_owned()),
            |e| e.user_id = None,
            |e| e.method = None,
            |e| e.factor_id = Some(String::new()),
            |e| e.challenge_id = None,
            |e| e.session_id = Some("ses_1".to_owned()),
            |e| e.outcome = "success".to_owned(),
            |e| e.reason = None,
            |e| e.client = None,
            |e| e.request_id = None,
            |e| e.rp_id = Id::new(Kind::RelyingParty, &at()),
            |e| link(e).person[0] ^= 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = events.clone();
            change(&mut changed[2]);
            assert_eq!(faults(&vault, &changed, Some(&head)), [(3, Fault::Changed)], "change {number}");
        }
    }

    #[test]
    fn what_is_missing_moved_or_cut_off_is_found() {
        let vault = vault();
        let (events, head) = chain(&vault);
        let mut missing = events.clone();
        missing.remove(1);
        assert_eq!(faults(&vault, &missing, Some(&head)), [(2, Fault::Missing)]);
        let mut moved = events.clone();
        (link(&mut moved[1]).sequence, link(&mut moved[2]).sequence) = (3, 2);
        moved.swap(1, 2);
        assert!(faults(&vault, &moved, Some(&head)).iter().all(|(n, f)| (2..5).contains(n) && *f == Fault::Changed));
        assert!(!faults(&vault, &moved, Some(&head)).is_empty());
        assert_eq!(faults(&vault, &events[..4], Some(&head)), [(5, Fault::TailCut)]);
        assert_eq!(faults(&vault, &events[..3], Some(&head)), [(4, Fault::TailCut)]);
        assert_eq!(faults(&vault, &[], Some(&head)), [(1, Fault::TailCut)]);
        assert_eq!(faults(&vault, &events, None), [(0, Fault::HeadForged)]);
    }

    /// Whoever writes in the database but lacks the key ring can write another chain, but no end for it.
    #[test]
    fn a_chain_that_was_written_anew_has_a_forged_head() {
        let vault = vault();
        let (events, head) = chain(&vault);
        let mut anew = events[..3].to_vec();
        anew[1].outcome = "success".to_owned();
        let forged = extend(&at(), &self::vault(), None, &head.rp_id, &mut anew);
        assert_eq!(faults(&vault, &anew, Some(&forged)), [(3, Fault::HeadForged)]);
        let cut = ChainHead { sequence: 3, hash: link(&mut events[2].clone()).hash.clone(), ..head.clone() };
        assert_eq!(faults(&vault, &events[..3], Some(&cut)), [(3, Fault::HeadForged)]);
        let other = ChainHead { rp_id: Id::new(Kind::RelyingParty, &at()), ..head.clone() };
        assert_eq!(faults(&vault, &events, Some(&other)), [(5, Fault::HeadForged)]);
        // An old end that was true once is only found by who remembers a later one.
        let (sequence, hash) = (5, head.hash.clone());
        let rp = head.rp_id.clone();
        let mut young = events[..2].to_vec();
        let old = extend(&at(), &vault, None, &rp, &mut young);
        let mut examiner = Examiner::new(Some((sequence, hash)));
        young.iter().for_each(|event| examiner.see(event));
        let findings = examiner.end(&vault, Some(&old), 2, &[]);
        assert_eq!(findings.iter().map(|f| f.fault).collect::<Vec<_>>(), [Fault::CheckpointLost]);
    }

    #[test]
    fn a_checkpoint_is_a_number_and_its_own_hash() {
        let vault = vault();
        let (mut events, head) = chain(&vault);
        let hashes: Vec<_> = events.iter_mut().map(|event| link(event).hash.clone()).collect();
        for (place, hash) in hashes.iter().enumerate() {
            for sequence in 1..=6 {
                let mut examiner = Examiner::new(Some((sequence, hash.clone())));
                events.iter().for_each(|event| examiner.see(event));
                let found: Vec<_> =
                    examiner.end(&vault, Some(&head), 5, &[]).iter().map(|f| f.fault.as_str()).collect();
                let there = sequence == place as i64 + 1;
                assert_eq!(found, if there { vec![] } else { vec!["checkpoint_lost"] });
            }
        }
    }

    #[test]
    fn faults_have_names_of_their_own() {
        use Fault::{Changed, CheckpointLost, Disguised, HeadForged, Missing, TailCut};
        let names = [Changed, Missing, TailCut, HeadForged, Disguised, CheckpointLost].map(Fault::as_str);
        assert_eq!(names, ["changed", "missing", "tail_cut", "head_forged", "disguised", "checkpoint_lost"]);
    }

    /// V-05: a user's name goes, the chain stays; but only an erasure that was written down explains it.
    #[test]
    fn erasure_keeps_the_chain_and_nothing_else_looks_like_it() {
        let vault = vault();
        let (mut events, head) = chain(&vault);
        for event in events.iter_mut().filter(|e| e.user_id.as_deref() == Some("ann")) {
            (event.user_id, event.client) = (Some("erased_1".to_owned()), None);
            link(event).salt = None;
        }
        let disguised = [1, 3, 5].map(|n| (n, Fault::Disguised));
        assert_eq!(faults(&vault, &events, Some(&head)), disguised);
        let mut told = vec![Recorded { kind: ERASED.to_owned(), ..event(&head.rp_id, "erased_1") }];
        let end = extend(&at(), &vault, Some(&head), &head.rp_id, &mut told);
        events.extend(told);
        assert_eq!(faults(&vault, &events, Some(&end)), []);
    }
}
