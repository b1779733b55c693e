//! The shapes of answers that several resources share.

use serde::Serialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use crate::engine::{Issued, Offer, Shown, TOTP_DIGITS, TOTP_PERIOD, resend_after};
use crate::model::{Details, Factor, Prompt, RecoverySummary, Session};

/// A factor; never with a secret.
#[derive(Serialize, ToSchema)]
pub struct FactorView {
    /// `fac_…`
    id: String,
    /// The method.
    #[serde(rename = "type")]
    #[schema(example = "totp")]
    kind: &'static str,
    /// The person's name for it.
    name: String,
    /// `pending` or `active`
    #[schema(example = "active")]
    status: &'static str,
    /// When enrolment began.
    #[schema(format = "date-time")]
    created_at: String,
    /// When it became active.
    #[schema(format = "date-time")]
    activated_at: Option<String>,
    /// When it last proved anything.
    #[schema(format = "date-time")]
    last_used_at: Option<String>,
    /// When a pending one dies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    expires_at: Option<String>,
    /// Of a passkey or security key; while pending, with the options for the browser, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    webauthn: Option<WebauthnView>,
    /// Of a phone; while pending, with the state of its code.
    #[serde(skip_serializing_if = "Option::is_none")]
    sms: Option<SmsView>,
    /// Of an authenticator app, once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    totp: Option<TotpView>,
}

/// What an authenticator app is set up with. Shown once.
#[derive(Serialize, ToSchema)]
pub struct TotpView {
    /// Base32 without padding.
    #[schema(nullable)]
    secret: String,
    /// Key URI.
    #[schema(nullable)]
    otpauth_uri: String,
    /// The URI as a QR symbol.
    #[schema(nullable)]
    qr_svg: String,
    /// Always `SHA1`: what every app understands.
    algorithm: &'static str,
    /// Always 6.
    digits: u8,
    /// Seconds; always 30.
    period: i64,
}

/// What is known of a passkey or security key.
#[derive(Default, Serialize, ToSchema)]
pub struct WebauthnView {
    /// The authenticator's model.
    #[serde(skip_serializing_if = "Option::is_none")]
    aaguid: Option<String>,
    /// A plain name for the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_name: Option<Option<String>>,
    /// May be synchronised.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_eligible: Option<bool>,
    /// Is synchronised.
    #[serde(skip_serializing_if = "Option::is_none")]
    backed_up: Option<bool>,
    /// How the browser reached it.
    #[serde(skip_serializing_if = "Option::is_none")]
    transports: Option<Vec<String>>,
    /// Verified the person when it was registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_verifying: Option<bool>,
    /// For `PublicKeyCredential.parseCreationOptionsFromJSON`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    creation_options: Option<Json>,
}

/// What is known of a phone.
#[derive(Serialize, ToSchema)]
pub struct SmsView {
    /// All but the last two digits hidden.
    phone_masked: String,
    /// ISO 3166-1 alpha-2; `null` where the number tells of none.
    country: Option<String>,
    /// When another code may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    resend_after: Option<String>,
    /// When the code that was sent expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    expires_at: Option<String>,
}

impl From<&Factor> for FactorView {
    fn from(factor: &Factor) -> FactorView {
        let mut view = FactorView {
            id: factor.id.to_string(),
            kind: factor.kind.as_str(),
            name: factor.name.clone(),
            status: if factor.is_active() { "active" } else { "pending" },
            created_at: factor.created_at.rfc3339(),
            activated_at: factor.activated_at.map(|t| t.rfc3339()),
            last_used_at: factor.last_used_at.map(|t| t.rfc3339()),
            expires_at: (!factor.is_active()).then(|| factor.expires_at.rfc3339()),
            webauthn: None,
            sms: None,
            totp: None,
        };
        match &factor.details {
            Details::Webauthn(details) if factor.is_active() => {
                view.webauthn = Some(WebauthnView {
                    aaguid: Some(details.aaguid.clone()),
                    provider_name: Some(details.provider_name.clone()),
                    backup_eligible: Some(details.backup_eligible),
                    backed_up: Some(details.backed_up),
                    transports: Some(details.transports.clone()),
                    user_verifying: Some(details.user_verifying),
                    creation_options: None,
                });
            }
            Details::Sms(details) => {
                view.sms = Some(SmsView {
                    phone_masked: details.phone_masked.clone(),
                    country: details.country.clone(),
                    resend_after: None,
                    expires_at: None,
                });
            }
            Details::Webauthn(_) | Details::Totp => {}
        }
        view
    }
}

impl FactorView {
    /// While it is pending, with what is shown once.
    pub fn begun(factor: &Factor, shown: &Shown, prompt: Option<&Prompt>) -> FactorView {
        let mut view = FactorView::from(factor);
        match shown {
            Shown::Totp { secret, otpauth_uri, qr_svg } => {
                view.totp = Some(TotpView {
                    secret: secret.to_string(),
                    otpauth_uri: otpauth_uri.to_string(),
                    qr_svg: qr_svg.to_string(),
                    algorithm: "SHA1",
                    digits: TOTP_DIGITS,
                    period: TOTP_PERIOD,
                });
            }
            Shown::Webauthn(options) => {
                let creation_options = Some(options.clone());
                view.webauthn = Some(WebauthnView { creation_options, ..WebauthnView::default() });
            }
            Shown::Sms { .. } => {}
        }
        if let (Some(sms), Some(prompt)) = (&mut view.sms, prompt) {
            sms.resend_after = Some(resend_after(prompt).rfc3339());
            sms.expires_at = Some(prompt.expires_at.rfc3339());
        }
        view
    }
}

/// A code that was sent for a challenge.
#[derive(Serialize, ToSchema)]
pub struct SentView {
    /// All but the last two digits hidden.
    phone_masked: String,
    /// When another may be sent.
    #[schema(format = "date-time")]
    resend_after: String,
    /// When it expires.
    #[schema(format = "date-time")]
    expires_at: String,
}

impl SentView {
    /// Of a prompt.
    pub fn new(phone_masked: String, prompt: &Prompt) -> SentView {
        SentView { phone_masked, resend_after: resend_after(prompt).rfc3339(), expires_at: prompt.expires_at.rfc3339() }
    }
}

/// Recovery codes, never themselves.
#[derive(Serialize, ToSchema)]
pub struct RecoveryView {
    /// How many were made.
    total: i64,
    /// How many are left.
    remaining: i64,
    /// `none`, `unconfirmed` or `active`
    #[schema(example = "active")]
    status: &'static str,
    /// When they were made.
    #[schema(format = "date-time")]
    created_at: Option<String>,
}

impl From<RecoverySummary> for RecoveryView {
    fn from(summary: RecoverySummary) -> RecoveryView {
        RecoveryView {
            total: summary.total,
            remaining: summary.remaining,
            status: summary.status.as_str(),
            created_at: summary.created_at.map(|t| t.rfc3339()),
        }
    }
}

/// One way to answer a challenge.
#[derive(Serialize, ToSchema)]
pub struct MethodView {
    /// The method.
    #[serde(rename = "type")]
    #[schema(example = "totp")]
    kind: &'static str,
    /// The factor; `null` for recovery codes.
    factor_id: Option<String>,
    /// The person's name for it.
    name: String,
    /// What helps to recognise it.
    hint: Option<String>,
    /// The end of the method's pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "date-time")]
    paused_until: Option<String>,
}

impl From<&Offer> for MethodView {
    fn from(offer: &Offer) -> MethodView {
        MethodView {
            kind: offer.kind.as_str(),
            factor_id: offer.factor_id.as_ref().map(|f| f.to_string()),
            name: offer.name.clone(),
            hint: offer.hint.clone(),
            paused_until: offer.pause.map(|pause| pause.until.rfc3339()),
        }
    }
}

/// A step-up session on its way to the relying party; token and JWT are seen once.
#[derive(Serialize, ToSchema)]
pub struct SessionView {
    /// `ses_…`
    id: String,
    /// Opaque: keep it in the application's own server-side session.
    #[schema(nullable)]
    token: String,
    /// For services that verify without asking; `null` for single-use sessions.
    jwt: Option<String>,
    /// Whose proof it was.
    user_id: String,
    /// The one action that it allows.
    action: String,
    /// `aal2`, `phr` or `phrh`
    #[schema(example = "aal2")]
    acr: &'static str,
    /// RFC 8176
    amr: Vec<String>,
    /// When the person last proved it.
    #[schema(format = "date-time")]
    auth_time: String,
    /// When it ends.
    #[schema(format = "date-time")]
    expires_at: String,
    /// Ends with its first use.
    single_use: bool,
    /// For whom the JWT is meant.
    audience: Vec<String>,
    /// The caller's own thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    binding: Option<String>,
}

impl From<&Issued> for SessionView {
    fn from(issued: &Issued) -> SessionView {
        let session = &issued.new.session;
        let grant = &session.grant;
        SessionView {
            id: session.id.to_string(),
            token: issued.token.to_string(),
            jwt: issued.jwt.clone(),
            audience: audience(session),
            user_id: session.user_id.clone(),
            action: grant.action.clone(),
            acr: grant.acr.as_str(),
            amr: grant.amr.clone(),
            auth_time: grant.auth_time.rfc3339(),
            expires_at: session.expires_at.rfc3339(),
            single_use: grant.single_use,
            binding: grant.binding.clone(),
        }
    }
}

/// A step-up session as it may be looked up; without token and JWT.
#[derive(Serialize, ToSchema)]
pub struct SessionState {
    /// `ses_…`
    id: String,
    /// Whose proof it was.
    user_id: String,
    /// The one action that it allows.
    action: String,
    /// `aal2`, `phr` or `phrh`
    #[schema(example = "aal2")]
    acr: &'static str,
    /// RFC 8176
    amr: Vec<String>,
    /// When the person last proved it.
    #[schema(format = "date-time")]
    auth_time: String,
    /// When it was made.
    #[schema(format = "date-time")]
    created_at: String,
    /// When it ends.
    #[schema(format = "date-time")]
    expires_at: String,
    /// Ends with its first use.
    single_use: bool,
    /// For whom the JWT is meant.
    audience: Vec<String>,
    /// The caller's own thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    binding: Option<String>,
    /// Not ended, not run out.
    active: bool,
}

impl SessionState {
    /// As it stands, with whether it counts now.
    pub fn new(session: Session, active: bool) -> SessionState {
        SessionState {
            id: session.id.to_string(),
            audience: audience(&session),
            user_id: session.user_id,
            action: session.grant.action,
            acr: session.grant.acr.as_str(),
            amr: session.grant.amr,
            auth_time: session.grant.auth_time.rfc3339(),
            created_at: session.created_at.rfc3339(),
            expires_at: session.expires_at.rfc3339(),
            single_use: session.grant.single_use,
            binding: session.grant.binding,
            active,
        }
    }
}

/// The audience that a session has, named or not.
pub fn audience(session: &Session) -> Vec<String> {
    match session.grant.audience.is_empty() {
        true => vec![session.rp_id.to_string()],
        false => session.grant.audience.clone(),
    }
}
