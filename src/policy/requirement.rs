//! What satisfies a demand: which methods a challenge offers, and whether a session is strong and fresh enough.

use crate::model::{Acr, Grant, MethodKind, Requirement, Timestamp};

use super::assurance;

/// How long a proof counts for a fresh start where the caller does not say, in seconds.
pub const DEFAULT_MAX_AGE: i64 = 600;

/// The action of a challenge that does not name one; a session of it also serves others.
pub const LOGIN: &str = "login";

/// Actions of factor management begin so.
pub const FACTOR_ACTIONS: &str = "factor.";

/// Whether a challenge for this action may be answered by this method.
///
/// Recovery codes serve `login` and factor management only, unless the demand names them (api.md, 5).
pub fn admits(action: &str, require: &Requirement, kind: MethodKind) -> bool {
    let named = require.methods.as_ref().map(|methods| methods.contains(&kind));
    let strong_enough = require.acr.is_none_or(|acr| assurance::best(kind) >= acr);
    let suits_action = kind != MethodKind::RecoveryCode
        || named == Some(true)
        || action == LOGIN
        || action.starts_with(FACTOR_ACTIONS);
    strong_enough && suits_action && named.unwrap_or(true)
}

/// The methods that would satisfy the demand, if the user had them.
pub fn would_satisfy(action: &str, require: &Requirement) -> Vec<MethodKind> {
    MethodKind::ALL
        .into_iter()
        .filter(|kind| *kind != MethodKind::RecoveryCode && admits(action, require, *kind))
        .collect()
}

/// What a session for something else lacks. No stronger or newer proof makes up for it.
pub const ACTION: &str = "action";

/// What a session lacks for this demand; empty where it satisfies. The names are those of the API.
pub fn missing(grant: &Grant, action: Option<&str>, require: &Requirement, now: Timestamp) -> Vec<&'static str> {
    let mut missing = Vec::new();
    if action.is_some_and(|action| action != grant.action) {
        missing.push(ACTION);
    }
    if require.acr.is_some_and(|acr| grant.acr < acr) {
        missing.push("acr");
    }
    if require.max_age.is_some_and(|age| now >= grant.auth_time.plus_seconds(age)) {
        missing.push("max_age");
    }
    if require.methods.as_ref().is_some_and(|methods| !methods.contains(&grant.method)) {
        missing.push("methods");
    }
    missing
}

/// Whether an earlier session lets a new challenge through without asking the person again.
pub fn is_fresh(grant: &Grant, action: &str, binding: Option<&str>, require: &Requirement, now: Timestamp) -> bool {
    let serves = grant.action == action || grant.action == LOGIN;
    let reusable = !grant.single_use && grant.method != MethodKind::RecoveryCode;
    let age = Requirement { max_age: Some(require.max_age.unwrap_or(DEFAULT_MAX_AGE)), ..require.clone() };
    serves && reusable && grant.binding.as_deref() == binding && missing(grant, None, &age, now).is_empty()
}

/// The challenge of RFC 9470, 3, by which a resource tells its caller to step up.
pub fn www_authenticate(require: &Requirement) -> String {
    let mut header = String::from(
        "Bearer error=\"insufficient_user_authentication\", error_description=\"A stronger or more recent authentication is required\"",
    );
    if let Some(acr) = require.acr {
        let enough: Vec<_> =
            [Acr::Aal2, Acr::Phr, Acr::Phrh].into_iter().filter(|a| *a >= acr).map(Acr::as_str).collect();
        header.push_str(&format!(", acr_values=\"{}\"", enough.join(" ")));
    }
    if let Some(age) = require.max_age {
        header.push_str(&format!(", max_age=\"{age}\""));
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Id, Kind};

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn grant(action: &str, acr: Acr, method: MethodKind) -> Grant {
        Grant {
            action: action.to_owned(),
            acr,
            amr: Vec::new(),
            method,
            auth_time: NOW,
            single_use: false,
            audience: Vec::new(),
            binding: None,
            context: None,
            challenge_id: Id::from_bytes(Kind::Challenge, [0; 16]),
        }
    }

    fn demand(acr: Option<Acr>, max_age: Option<i64>) -> Requirement {
        Requirement { acr, max_age, methods: None }
    }

    #[test]
    fn recovery_codes_serve_login_and_factor_management_only() {
        let any = Requirement::default();
        assert!(admits("login", &any, MethodKind::RecoveryCode));
        assert!(admits("factor.add", &any, MethodKind::RecoveryCode));
        assert!(!admits("payout.update", &any, MethodKind::RecoveryCode));
        let named = Requirement { methods: Some(vec![MethodKind::RecoveryCode]), ..any };
        assert!(admits("payout.update", &named, MethodKind::RecoveryCode));
        assert!(!admits("login", &demand(Some(Acr::Phr), None), MethodKind::RecoveryCode));
    }

    #[test]
    fn a_demand_names_what_would_satisfy_it() {
        assert_eq!(would_satisfy("x", &demand(Some(Acr::Phr), None)), [MethodKind::Webauthn]);
        assert!(would_satisfy("x", &demand(Some(Acr::Phrh), None)).is_empty());
        assert_eq!(would_satisfy("login", &Requirement::default()).len(), 3);
    }

    /// S-14.
    #[test]
    fn a_session_of_another_action_satisfies_nothing() {
        let session = grant("a", Acr::Phr, MethodKind::Webauthn);
        assert_eq!(missing(&session, Some("b"), &Requirement::default(), NOW), ["action"]);
        assert!(missing(&session, Some("a"), &Requirement::default(), NOW).is_empty());
        assert!(missing(&session, None, &Requirement::default(), NOW).is_empty());
    }

    #[test]
    fn age_counts_from_the_proof_and_zero_means_now() {
        let session = grant("a", Acr::Aal2, MethodKind::Totp);
        assert_eq!(missing(&session, None, &demand(None, Some(0)), NOW), ["max_age"]);
        assert!(missing(&session, None, &demand(None, Some(60)), Timestamp(NOW.0 + 59_999)).is_empty());
        assert_eq!(missing(&session, None, &demand(None, Some(60)), NOW.plus_seconds(60)), ["max_age"]);
        assert_eq!(missing(&session, None, &demand(Some(Acr::Phr), None), NOW), ["acr"]);
    }

    #[test]
    fn strength_suffices_where_it_is_what_was_asked_and_a_method_where_it_was_named() {
        let session = grant("a", Acr::Phr, MethodKind::Webauthn);
        let asked = [Acr::Aal2, Acr::Phr, Acr::Phrh].map(|acr| missing(&session, None, &demand(Some(acr), None), NOW));
        assert_eq!(asked, [vec![], vec![], vec!["acr"]]);
        let by = |methods: &[MethodKind]| Requirement { methods: Some(methods.to_vec()), ..Requirement::default() };
        assert!(missing(&session, None, &by(&[MethodKind::Totp, MethodKind::Webauthn]), NOW).is_empty());
        assert_eq!(missing(&session, None, &by(&[MethodKind::Totp]), NOW), ["methods"]);
    }

    #[test]
    fn freshness_needs_the_same_binding_and_action_and_no_recovery_code() {
        let any = Requirement::default();
        let login = grant("login", Acr::Aal2, MethodKind::Totp);
        assert!(is_fresh(&login, "payout", None, &any, NOW));
        assert!(!is_fresh(&login, "payout", Some("s-1"), &any, NOW));
        assert!(!is_fresh(&login, "payout", None, &any, NOW.plus_seconds(DEFAULT_MAX_AGE)));
        assert!(!is_fresh(&grant("payout", Acr::Aal2, MethodKind::Totp), "login", None, &any, NOW));
        assert!(!is_fresh(&grant("login", Acr::Aal2, MethodKind::RecoveryCode), "login", None, &any, NOW));
        assert!(!is_fresh(&Grant { single_use: true, ..login }, "login", None, &any, NOW));
    }

    /// S-06.
    #[test]
    fn a_step_up_demand_is_written_as_rfc_9470_says() {
        let header = www_authenticate(&demand(Some(Acr::Phr), Some(300)));
        assert!(header.starts_with("Bearer error=\"insufficient_user_authentication\""), "{header}");
        assert!(header.contains("acr_values=\"phr phrh\""), "{header}");
        assert!(header.ends_with("max_age=\"300\""), "{header}");
    }
}
