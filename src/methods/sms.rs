//! Codes sent as text messages. The weakest method: kept for those who have no other, never phishing-resistant.
//! Decides what is texted and to which numbers; the sending itself is done elsewhere.

use phonenumber::metadata::{DATABASE, Metadata};
use phonenumber::{PhoneNumber, Type};
use zeroize::Zeroizing;

use super::{
    Answer, Begun, Enrolled, Exam, Held, Method, Parties, Proven, Refusal, Shown, Spent, Wish, delivered, six_digits,
};
use crate::model::{Channel, Details, Evidence, Id, Keyed, Moment, Number, SmsDetails, misleads};

/// Country codes that belong to no country: freephone, which takes no texts, and shared-cost, satellite, personal and premium
/// networks, which cost accordingly.
const NO_COUNTRY: [&str; 9] = ["800", "808", "870", "878", "881", "882", "883", "888", "979"];

/// The kinds of numbers that a country's plan tells apart, in the order in which they are: the first that fits is a number's kind.
const KINDS: [Type; 10] = [
    Type::PremiumRate,
    Type::TollFree,
    Type::SharedCost,
    Type::Voip,
    Type::PersonalNumber,
    Type::Pager,
    Type::Uan,
    Type::Voicemail,
    Type::Mobile,
    Type::FixedLine,
];
/// Those that cost whoever texts or calls them; personal numbers do not where they are of the North American plan.
const COSTLY: [Type; 5] = [Type::PremiumRate, Type::SharedCost, Type::PersonalNumber, Type::Uan, Type::Pager];

/// The method.
pub struct Sms {
    countries: Option<Vec<String>>,
}

impl Sms {
    /// With the countries that may be texted, as ISO 3166-1 alpha-2 codes; `None` for all but costly numbers.
    pub fn new(countries: Option<Vec<String>>) -> Sms {
        Sms { countries }
    }

    /// Whether numbers of this country may be texted at all.
    pub fn lists(&self, country: &str) -> bool {
        self.countries.as_ref().is_none_or(|allowed| allowed.iter().any(|a| a.eq_ignore_ascii_case(country)))
    }

    /// The country of a number that may be texted (requirements P-14, P-15).
    pub fn country(&self, number: &Number) -> Result<Option<String>, Refusal> {
        let digits = &number.as_str()[1..];
        if NO_COUNTRY.iter().any(|code| digits.starts_with(code)) {
            return Err(Refusal::PhoneNotAllowed);
        }
        let parsed = phonenumber::parse(None, number.as_str()).map_err(|_| Refusal::PhoneInvalid)?;
        let (national, plans) = national(number, &parsed);
        // The digits as they stand: the library loses zeros at their beginning when it looks for a kind or a country.
        let fits = |plan: &Metadata, kind| plan.descriptors().get(kind).is_some_and(|some| some.is_match(national));
        let country = parsed.country().id().map(|id| id.as_ref().to_owned());
        let country = country.or_else(|| {
            let own = plans.iter().find(|plan| plan.descriptors().general().is_match(national));
            own.map(|plan| plan.id().to_owned())
        });
        let costly = plans
            .iter()
            .filter(|plan| country.as_deref().is_none_or(|country| plan.id() == country))
            .filter_map(|plan| Some((plan, KINDS.into_iter().find(|kind| fits(plan, *kind))?)))
            .any(|(plan, kind)| COSTLY.contains(&kind) && !(kind == Type::PersonalNumber && plan.country_code() == 1));
        let listed = country.as_ref().map_or(self.countries.is_none(), |country| self.lists(country));
        if costly || !listed {
            return Err(Refusal::PhoneNotAllowed);
        }
        Ok(country)
    }
}

impl Method for Sms {
    fn begin_enrolment(
        &self,
        at: &Moment<'_>,
        keyed: &dyn Keyed,
        parties: &Parties,
        owner: &Id,
        wish: &Wish,
        _held: &[Held],
    ) -> Result<Begun, Refusal> {
        let Wish::Sms(number) = wish else { return Err(Refusal::NotAllowed) };
        if !is_written_out(number) {
            return Err(Refusal::PhoneInvalid);
        }
        let details = SmsDetails { phone_masked: number.masked(), country: self.country(number)? };
        let mut begun = text(at, keyed, parties, owner, number.clone(), details);
        begun.secret = Some(Zeroizing::new(number.as_str().as_bytes().to_vec()));
        Ok(begun)
    }

    fn finish_enrolment(&self, exam: &Exam) -> Result<Enrolled, Refusal> {
        let pending = exam.held.first().ok_or(Refusal::NotAllowed)?;
        judge(exam)?;
        Ok(Enrolled { details: pending.factor.details.clone(), secret: None, credential_id: None, last_step: 0 })
    }

    fn begin_challenge(
        &self,
        at: &Moment<'_>,
        keyed: &dyn Keyed,
        parties: &Parties,
        owner: &Id,
        held: &[Held],
    ) -> Result<Begun, Refusal> {
        let held = held.first().ok_or(Refusal::NotAllowed)?;
        let number = number_of(held).ok_or(Refusal::PhoneInvalid)?;
        let Details::Sms(details) = &held.factor.details else { return Err(Refusal::NotAllowed) };
        self.country(&number)?;
        Ok(text(at, keyed, parties, owner, number, details.clone()))
    }

    fn check_form(&self, answer: &Answer) -> Result<(), Refusal> {
        six_digits(answer.code()?).map(drop)
    }

    fn verify(&self, exam: &Exam) -> Result<Proven, Refusal> {
        let held = exam.held.first().ok_or(Refusal::Expired)?;
        judge(exam)?;
        Ok(Proven {
            spent: Spent::SentCode { factor: held.factor.id.clone() },
            evidence: Evidence::of_code(Channel::Sms),
        })
    }
}

/// Whether the answer is the code that was sent.
fn judge(exam: &Exam) -> Result<(), Refusal> {
    let code = six_digits(exam.answer.code()?)?;
    delivered::judge(&*exam.keyed, &exam.owner, exam.state.as_deref().map(Vec::as_slice), &code)
}

/// A number's digits behind its country code, and the plans of that code.
fn national<'n>(number: &'n Number, parsed: &PhoneNumber) -> (&'n str, Vec<&'static Metadata>) {
    let code = parsed.code().value();
    (&number.as_str()[1 + code.to_string().len()..], DATABASE.by_code(&code).unwrap_or_default())
}

/// The country whose budget a text to this number draws on, where no plan knows the number: the main one of its calling code.
pub fn main_country(number: &Number) -> Option<String> {
    let parsed = phonenumber::parse(None, number.as_str()).ok()?;
    let (_, plans) = national(number, &parsed);
    let main = plans.iter().find(|plan| plan.is_main_country_for_code()).or(plans.first())?;
    Some(main.id().to_owned())
}

/// The number that is dialled so within a country (ISO 3166-1 alpha-2): as it stands where the country's plan knows it, else without
/// what is dialled before it there and nowhere else (`0`, `06`, `8`, `80`). A plan may know neither: ranges are opened before.
pub fn dialled(country: &str, digits: &str) -> Option<Number> {
    let plan = DATABASE.by_id(country)?;
    let bare = plan.national_prefix().and_then(|prefix| digits.strip_prefix(prefix));
    // What may stand there instead of the usual prefix, as a regular expression, and what it stands for.
    let other = plan.national_prefix_for_parsing().and_then(|prefix| {
        let parts = prefix.captures(digits)?;
        let found = parts.get(0).filter(|found| found.start() == 0)?;
        Some(match plan.national_prefix_transform_rule().filter(|_| parts.get(1).is_some()) {
            Some(rule) => prefix.replace(digits, rule).into_owned(),
            None => digits[found.end()..].to_owned(),
        })
    });
    // A 0 is written by habit where it is dialled no more, too.
    let forms = [Some(digits), bare, other.as_deref(), digits.strip_prefix('0')];
    let known = forms.into_iter().flatten().find(|national| is_planned(plan, national));
    Number::parse(&format!("+{}{}", plan.country_code(), known.or(bare).unwrap_or(digits)))
}

/// Whether a plan knows this number: all of its digits, and their count.
fn is_planned(plan: &Metadata, national: &str) -> bool {
    let whole = plan.descriptors().general().national_number().find(national);
    whole.is_some_and(|found| found.len() == national.len()) && has_length(&[plan], national)
}

/// Whether numbers of these plans may have so many digits.
fn has_length(plans: &[&Metadata], national: &str) -> bool {
    let kinds = plans.iter().flat_map(|plan| KINDS.into_iter().filter_map(|kind| plan.descriptors().get(kind)));
    let mut lengths = kinds.flat_map(|kind| kind.possible_length()).map(|length| usize::from(*length)).peekable();
    lengths.peek().is_none() || lengths.any(|length| length == national.len())
}

/// Whether a number has a length of its country code, and no digit that is dialled within the country alone: with it the same phone
/// would have two spellings, each with budgets of its own (P-15). More is not asked, and nothing of a number that was proven:
/// ranges are opened before a plan knows of them.
fn is_written_out(number: &Number) -> bool {
    let Ok(parsed) = phonenumber::parse(None, number.as_str()) else { return false };
    let (national, plans) = national(number, &parsed);
    // The library takes a first 8 for such a digit also where it belongs to the number: a plan that knows the number tells.
    let is_known = plans.iter().any(|plan| plan.descriptors().general().is_match(national));
    has_length(&plans, national)
        && (is_known || parsed.format().mode(phonenumber::Mode::E164).to_string() == number.as_str())
}

/// The number of a phone.
pub fn number_of(held: &Held) -> Option<Number> {
    std::str::from_utf8(&held.secret).ok().and_then(Number::parse)
}

fn text(
    at: &Moment<'_>,
    keyed: &dyn Keyed,
    parties: &Parties,
    owner: &Id,
    number: Number,
    details: SmsDetails,
) -> Begun {
    let (code, state) = delivered::issue(at, keyed, owner);
    let text = wording(&code, &parties.rp.name, &parties.purpose, &parties.rp.host);
    Begun {
        shown: Shown::Sms { phone_masked: details.phone_masked.clone() },
        secret: None,
        state: Some(state),
        text: Some((number, Zeroizing::new(text))),
        details: Details::Sms(details),
    }
}

/// The code first, so that it is the first run of six digits; the origin-bound line last (WICG origin-bound one-time codes).
fn wording(code: &str, app: &str, purpose: &str, host: &str) -> String {
    let app = one_line(app);
    let purpose = one_line(purpose);
    format!("{code} is your {app} code to {purpose}. Don't share it.\n\n@{host} #{code}")
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if misleads(c) { ' ' } else { c }).take(60).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRng;
    use crate::methods::Fault;
    use crate::methods::specimen::{self, NOW, OpenKeys, code, exam, owner, parties};
    use crate::model::MethodKind;

    fn country(number: &str) -> Result<Option<String>, Refusal> {
        Sms::new(None).country(&Number::parse(number).expect("E.164"))
    }

    /// P-14, P-15.
    #[test]
    fn costly_numbers_are_not_texted() {
        for costly in [
            "+19005550123",
            "+449098790123",
            "+870773111632",
            "+8816123456789",
            "+88213123456",
            "+979123456789",
            "+80812345678",
            "+491805123456",
            // Zeros at their beginning belong to them.
            "+22709764986",
            "+39087817868",
        ] {
            assert_eq!(country(costly), Err(Refusal::PhoneNotAllowed), "{costly}");
        }
        assert_eq!(country("+14155550123"), Ok(Some("US".to_owned())));
        assert_eq!(country("+15005550006"), Ok(Some("US".to_owned())), "with which gateways are tried");
        assert_eq!(country("+447012345678"), Err(Refusal::PhoneNotAllowed));
        assert_eq!(country("+390612345678"), Ok(Some("IT".to_owned())));
        assert_eq!(country("+2250102030405"), Ok(Some("CI".to_owned())));
        assert_eq!(country("+4915112345678"), Ok(Some("DE".to_owned())));
    }

    /// P-15: one phone has one spelling, and costly numbers have no other.
    #[test]
    fn digits_that_are_dialled_within_a_country_alone_are_no_part_of_a_number() {
        let is_taken = |number: &str| is_written_out(&Number::parse(number).expect("E.164"));
        let numbers =
            ["+4915112345678", "+2250102030405", "+24106031234", "+390612345678", "+393123456789", "+77011234567"];
        for good in numbers.into_iter().chain(["+78121234567", "+78001234567"]) {
            assert!(is_taken(good) && country(good).is_ok(), "{good}");
        }
        for bad in ["+49015112345678", "+4407911123456", "+33006123456", "+6202112345678"] {
            assert!(!is_taken(bad), "{bad}");
        }
        for costly in ["+78091234567", "+559009702575", "+37080812345"] {
            assert_eq!(country(costly), Err(Refusal::PhoneNotAllowed), "{costly}");
        }
    }

    /// What people write is what they dial at home.
    #[test]
    fn what_is_dialled_within_a_country_alone_is_left_out() {
        for (country, digits, whole) in [
            ("DE", "015155501234", "+4915155501234"),
            ("US", "14155550123", "+14155550123"),
            ("GB", "07700900123", "+447700900123"),
            ("HU", "06201234567", "+36201234567"),
            ("HU", "0612345678", "+3612345678"),
            ("HU", "201234567", "+36201234567"),
            ("BY", "80291234567", "+375291234567"),
            ("BY", "0291234567", "+375291234567"),
            ("TM", "865123456", "+99365123456"),
            ("RU", "89123456789", "+79123456789"),
            ("RU", "8001234567", "+78001234567"),
            ("KZ", "87011234567", "+77011234567"),
            ("LT", "861234567", "+37061234567"),
            ("LT", "061234567", "+37061234567"),
            ("AR", "0111512345678", "+5491112345678"),
            ("AR", "01141234567", "+541141234567"),
            ("KR", "01012345678", "+821012345678"),
            ("JM", "8765551234", "+18765551234"),
            ("CZ", "0731905331", "+420731905331"),
            ("CL", "0910054713", "+56910054713"),
            ("ES", "0612345678", "+34612345678"),
            // Zeros that belong to the number.
            ("IT", "0612345678", "+390612345678"),
            ("CI", "0102030405", "+2250102030405"),
            ("CG", "066031234", "+242066031234"),
            ("GA", "06031234", "+24106031234"),
            ("SM", "886377", "+3780549886377"),
        ] {
            let number = dialled(country, digits);
            assert_eq!(number.as_ref().map(Number::as_str), Some(whole), "{country} {digits}");
            assert!(number.is_some_and(|number| is_written_out(&number)), "{whole}");
        }
        assert_eq!(dialled("DE", "12"), None);
        assert_eq!(dialled("", "015155501234"), None);
    }

    #[test]
    fn a_country_list_leaves_out_all_others() {
        let only_german = Sms::new(Some(vec!["de".to_owned()]));
        assert!(only_german.country(&Number::parse("+4915112345678").expect("E.164")).is_ok());
        assert_eq!(only_german.country(&Number::parse("+14155550123").expect("E.164")), Err(Refusal::PhoneNotAllowed));
    }

    /// P-12: the last line is exactly `@host #code`; nothing but the code runs to six digits before it.
    #[test]
    fn the_text_is_bound_to_the_site_and_the_code_comes_first() {
        let text = wording("012345", "Acme 2000\r\nBank", "pay 123456 now", "example.com");
        assert!(text.starts_with("012345 is your Acme 2000  Bank code to"), "{text}");
        assert_eq!(text.lines().last(), Some("@example.com #012345"));
        assert_eq!(text.lines().count(), 3);
    }

    fn phone(secret: &str, details: Details) -> Held {
        specimen::held(2, MethodKind::Sms, details, secret.as_bytes())
    }

    fn details() -> Details {
        Details::Sms(SmsDetails { phone_masked: "+••••••23".to_owned(), country: Some("US".to_owned()) })
    }

    /// The code at the head of a text.
    fn sent(begun: &Begun) -> String {
        begun.text.as_ref().expect("a text").1[..6].to_owned()
    }

    fn other(than: &str) -> &'static str {
        if than == "000000" { "000001" } else { "000000" }
    }

    /// P-04, P-12: a code goes to the number that is to be enrolled, and that code enrols it.
    #[test]
    fn a_phone_is_enrolled_by_the_code_that_it_was_sent() {
        let at = Moment::new(NOW, &SystemRng);
        let begin = |wish: &Wish| Sms::new(None).begin_enrolment(&at, &OpenKeys, &parties(), &owner(), wish, &[]);
        let number = Number::parse("+14155550123").expect("E.164");
        let begun = begin(&Wish::Sms(number.clone())).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(begun.secret.as_deref().map(Vec::as_slice), Some(&b"+14155550123"[..]));
        let Details::Sms(shown) = &begun.details else { unreachable!("a phone's") };
        assert_eq!((shown.phone_masked.clone(), shown.country.as_deref()), (number.masked(), Some("US")));
        let Shown::Sms { phone_masked } = &begun.shown else { unreachable!("a phone's") };
        assert_eq!(*phone_masked, number.masked());
        assert_eq!(begun.text.as_ref().map(|(to, _)| to.as_str()), Some("+14155550123"));
        let code_sent = sent(&begun);
        let (_, text) = begun.text.as_ref().expect("a text");
        let meant =
            format!("{code_sent} is your Bank code to pay 12 euros. Don't share it.\n\n@bank.example #{code_sent}");
        assert_eq!(text.as_str(), meant);
        assert_eq!(begin(&Wish::Totp).err(), Some(Refusal::NotAllowed));
        let to = |number| begin(&Wish::Sms(Number::parse(number).expect("E.164"))).err();
        for premium_shared_satellite in ["+19005550123", "+448431234567", "+881612345678"] {
            assert_eq!(to(premium_shared_satellite), Some(Refusal::PhoneNotAllowed), "{premium_shared_satellite}");
        }
        assert_eq!(to("+18005550123"), None, "toll-free numbers cost nobody more");
        for (impossible, possible) in
            [("+1415555012", "+14155550123"), ("+190055501001", "+15555550123"), ("+4487112345", "+447700900123")]
        {
            assert_eq!(to(impossible), Some(Refusal::PhoneInvalid), "{impossible}");
            assert_eq!(to(possible), None, "{possible}");
        }

        let held = || vec![phone("+14155550123", begun.details.clone())];
        let finish =
            |held, state: &Option<_>, answer| Sms::new(None).finish_enrolment(&exam(held, state.clone(), answer));
        let enrolled = finish(held(), &begun.state, code(&code_sent)).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!((enrolled.details, enrolled.last_step), (begun.details.clone(), 0));
        assert!(enrolled.secret.is_none() && enrolled.credential_id.is_none());
        let refused = |held, state: &Option<_>, answer| finish(held, state, answer).err();
        assert_eq!(refused(held(), &begun.state, code(other(&code_sent))), Some(Refusal::Wrong(Fault::Code)));
        assert_eq!(refused(held(), &None, code(&code_sent)), Some(Refusal::Expired));
        assert_eq!(refused(Vec::new(), &begun.state, code(&code_sent)), Some(Refusal::NotAllowed));
        assert_eq!(refused(held(), &begun.state, specimen::credential()), Some(Refusal::Malformed));
    }

    /// P-04, P-15: a challenge's code goes to the enrolled number, as long as it may still be texted.
    #[test]
    fn a_challenge_is_answered_by_the_code_that_was_sent_for_it() {
        let at = Moment::new(NOW, &SystemRng);
        let begin = |held: &[Held]| Sms::new(None).begin_challenge(&at, &OpenKeys, &parties(), &owner(), held);
        let held = [phone("+14155550123", details())];
        let begun = begin(&held).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!((begun.details.clone(), begun.secret.is_none()), (details(), true));
        let Shown::Sms { phone_masked } = &begun.shown else { unreachable!("a phone's") };
        assert_eq!(phone_masked, "+••••••23");
        assert_eq!(begun.text.as_ref().map(|(to, _)| to.as_str()), Some("+14155550123"));
        assert_eq!(begin(&[]).err(), Some(Refusal::NotAllowed));
        assert_eq!(begin(&[phone("14155550123", details())]).err(), Some(Refusal::PhoneInvalid));
        assert_eq!(begin(&[phone("+19005550123", details())]).err(), Some(Refusal::PhoneNotAllowed));
        assert_eq!(begin(&[phone("+14155550123", Details::Totp)]).err(), Some(Refusal::NotAllowed));

        let code_sent = sent(&begun);
        let verify = |held: &[Held], state: &Option<_>, answer| {
            Sms::new(None).verify(&exam(held.to_vec(), state.clone(), answer))
        };
        let proven = verify(&held, &begun.state, code(&code_sent)).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(proven.evidence, Evidence::of_code(Channel::Sms));
        assert_eq!(proven.spent.factor(), Some(&held[0].factor.id));
        let refused = |held, state: &Option<_>, answer| verify(held, state, answer).err();
        assert_eq!(refused(&held, &begun.state, code(other(&code_sent))), Some(Refusal::Wrong(Fault::Code)));
        assert_eq!(refused(&held, &begun.state, code("12345")), Some(Refusal::Malformed));
        assert_eq!(refused(&held, &None, code(&code_sent)), Some(Refusal::Expired));
        assert_eq!(refused(&[], &begun.state, code(&code_sent)), Some(Refusal::Expired));
    }

    #[test]
    fn only_six_digits_have_the_form_of_a_code() {
        assert_eq!(Sms::new(None).check_form(&code("123 456")), Ok(()));
        assert_eq!(Sms::new(None).check_form(&code("12345")), Err(Refusal::Malformed));
        assert_eq!(Sms::new(None).check_form(&specimen::credential()), Err(Refusal::Malformed));
    }

    #[test]
    fn names_in_a_text_are_one_line_of_bounded_length() {
        assert_eq!(one_line(" a\r\nb\u{7}c "), "a  b c");
        assert_eq!(one_line(&"é".repeat(99)).chars().count(), 60);
    }
}
