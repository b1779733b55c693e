//! The security settings: what the engine knows of the person, the way to the hosted pages, and removal on the bank's word.

use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::json;

use super::account::person;
use super::api::{Session, Trouble};
use super::browsers::{Notice, Person, Stage};
use super::purpose::Purpose;
use super::visit::{Fields, Visit};
use super::{pages, step_up};

/// What the application reads of a user.
#[derive(Deserialize)]
pub struct User {
    /// Active and pending factors.
    pub factors: Vec<Factor>,
    /// Recovery codes.
    pub recovery_codes: RecoveryCodes,
    /// The strongest that the person can prove.
    pub highest_acr: Option<String>,
}

/// What the application reads of a factor.
#[derive(Clone, Deserialize)]
pub struct Factor {
    /// `fac_…`
    pub id: String,
    /// The method.
    #[serde(rename = "type")]
    pub method: String,
    /// The person's name for it.
    pub name: String,
    /// `pending` or `active`
    pub status: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub last_used_at: Option<String>,
    /// Of a phone.
    pub sms: Option<Sms>,
    /// Of a passkey.
    pub webauthn: Option<Webauthn>,
}

/// What the application reads of a phone.
#[derive(Clone, Deserialize)]
pub struct Sms {
    /// All but the last two digits hidden.
    pub phone_masked: String,
}

/// What the application reads of a passkey.
#[derive(Clone, Deserialize)]
pub struct Webauthn {
    /// Whose authenticator it is.
    pub provider_name: Option<String>,
    /// It is synchronised.
    pub backed_up: Option<bool>,
}

/// Recovery codes, never themselves.
#[derive(Deserialize)]
pub struct RecoveryCodes {
    /// How many were made.
    pub total: u32,
    /// How many are left.
    pub remaining: u32,
    /// `none`, `unconfirmed` or `active`
    pub status: String,
}

impl User {
    /// The factors that count.
    pub fn active(&self) -> Vec<&Factor> {
        self.factors.iter().filter(|f| f.status == "active").collect()
    }
}

impl Factor {
    /// The method in words.
    pub fn kind(&self) -> &'static str {
        match self.method.as_str() {
            "webauthn" => "Passkey",
            "totp" => "Authenticator app",
            "sms" => "Text message",
            _ => "Other",
        }
    }

    /// What helps to recognise it.
    pub fn hint(&self) -> String {
        // with hyphens at which no line breaks
        let day = |time: &str| time.get(..10).unwrap_or_default().replace('-', "\u{2011}");
        let mut hints = Vec::new();
        if let Some(sms) = &self.sms {
            hints.push(sms.phone_masked.clone());
        }
        if let Some(webauthn) = &self.webauthn {
            hints.extend(webauthn.provider_name.clone());
            hints.push(if webauthn.backed_up == Some(true) { "Synced" } else { "This device only" }.to_owned());
        }
        hints.push(format!("Added {}", day(&self.created_at)));
        hints.extend(self.last_used_at.as_deref().map(|used| format!("Last used {}", day(used))));
        hints.join(" · ")
    }
}

async fn user(visit: &Visit, person: &Person) -> Result<User, Trouble> {
    let path = format!("/v1/users/{}", person.customer.user_id);
    visit.bank.engine.get(visit, &path).await?.read("")
}

/// `GET /demo/security`; the hosted pages return here too.
pub async fn page(visit: Visit) -> Result<Response, Response> {
    let person = person(&visit)?;
    Ok(match user(&visit, &person).await {
        Ok(user) => pages::security(&visit, &user).await,
        Err(trouble) => pages::trouble(&visit, &trouble).await,
    })
}

/// `POST /demo/security/visit`: to the hosted pages, which ask for proof themselves where there is something to protect.
pub async fn visit_portal(visit: Visit, fields: Fields) -> Result<Response, Response> {
    let person = person(&visit)?;
    let mut body = json!({
        "user_id": person.customer.user_id,
        "flow": fields.text("flow"),
        "return_url": format!("{}/demo/security", visit.bank.settings.origin),
    });
    // What was proven to sign in is not asked for again at once.
    if let Stage::In(Some(step_up)) = &person.stage {
        body["session_token"] = json!(step_up.token);
    }
    Ok(match visit.bank.engine.post(&visit, "/v1/portal-sessions", body).await {
        Ok(answer) => Redirect::to(answer.text("url")).into_response(),
        Err(trouble) => pages::trouble(&visit, &trouble).await,
    })
}

/// `POST /demo/security/remove`: on the bank's word, so the bank asks for proof first.
pub async fn remove(visit: Visit, fields: Fields) -> Result<Response, Response> {
    let person = person(&visit)?;
    let user = match user(&visit, &person).await {
        Ok(user) => user,
        Err(trouble) => return Ok(pages::trouble(&visit, &trouble).await),
    };
    let found = user.active().into_iter().find(|f| f.id == fields.text("factor")).cloned();
    let (Some(factor), Some(acr)) = (found, user.highest_acr) else {
        let title = "This list changed in another window.".to_owned();
        return Ok(visit.tell(Notice { title, ..Notice::default() }, "/demo/security"));
    };
    let purpose = Purpose::Remove { factor_id: factor.id, name: factor.name, acr };
    Ok(step_up::ask(&visit, &person, purpose, async || {
        let title = "Nothing was changed.".to_owned();
        let text = "You have nothing that is strong enough to confirm it.".to_owned();
        visit.tell(Notice { title, text, ..Notice::default() }, "/demo/security")
    })
    .await)
}

/// Removes the factor, if the session is bound to this very removal.
pub async fn remove_now(
    visit: &Visit,
    person: &Person,
    purpose: &Purpose,
    session: &Session,
) -> Result<Response, Trouble> {
    let customer = person.customer;
    let is_confirmed = step_up::confirmed(visit, customer, purpose, session).await?;
    let (true, Purpose::Remove { factor_id, name, .. }) = (is_confirmed, purpose) else {
        return Ok(pages::not_yours(visit).await);
    };
    visit.bank.engine.delete(visit, &format!("/v1/users/{}/factors/{factor_id}", customer.user_id)).await?;
    let title = format!("{name} is removed");
    let text = "It may stay in your password manager or app; you can delete it there.".to_owned();
    Ok(visit.tell(Notice { good: true, title, text, ..Notice::default() }, "/demo/security"))
}
