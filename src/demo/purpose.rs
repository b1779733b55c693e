//! What the bank asks a second step for, and what each of these demands: the application's own policy in one table.

use serde_json::{Value, json};

use super::customers::Customer;
use super::iban;

/// What somebody is about to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Sign in.
    SignIn,
    /// Look at the balance: whoever is in may, as long as the proof of the login lasts.
    Balance,
    /// Look at the statement: a fresh proof of the login will do.
    Statement,
    /// Have money paid out elsewhere: shown, bound to what was shown, never inherited.
    Payout {
        /// The new account.
        iban: String,
    },
    /// End it all: a passkey, for this once.
    Delete,
    /// Remove a way to sign in: as strong as the strongest that there is.
    Remove {
        /// `fac_…`
        factor_id: String,
        /// The person's name for it.
        name: String,
        /// The strongest that the person can prove.
        acr: String,
    },
}

impl Purpose {
    /// What the step-up session will allow, and nothing else.
    pub fn action(&self) -> &'static str {
        match self {
            Purpose::SignIn | Purpose::Balance => "login",
            Purpose::Statement => "statement.view",
            Purpose::Payout { .. } => "payout.update",
            Purpose::Delete => "account.delete",
            Purpose::Remove { .. } => "factor.remove",
        }
    }

    /// The request's members that say so: demand, what is shown, single use.
    pub fn members(&self, customer: &Customer) -> Value {
        let mut members = json!({ "action": self.action() });
        if let Some(label) = self.label() {
            members["display"] = json!({ "label": label });
        }
        let details = self.details(customer);
        if !details.is_empty() {
            members["display"]["details"] = Value::Array(details);
        }
        if !self.require().is_null() {
            members["require"] = self.require();
        }
        if matches!(self, Purpose::Delete) {
            members["single_use"] = Value::Bool(true);
        }
        members
    }

    /// What the session must meet, in the API's terms; `null` where any second step will do.
    pub fn require(&self) -> Value {
        match self {
            Purpose::Delete => json!({ "acr": "phr" }),
            Purpose::Remove { acr, .. } => json!({ "acr": acr }),
            _ => Value::Null,
        }
    }

    /// What the person sees and confirms; the session is bound to it.
    pub fn details(&self, customer: &Customer) -> Vec<Value> {
        let detail = |label: &str, value: &str| json!({ "label": label, "value": value });
        match self {
            Purpose::Payout { iban } => {
                vec![detail("New payout account", &iban::groups(iban)), detail("Account holder", customer.full_name)]
            }
            Purpose::Remove { name, .. } => vec![detail("To be removed", name)],
            _ => Vec::new(),
        }
    }

    fn label(&self) -> Option<&'static str> {
        match self {
            Purpose::SignIn => None,
            Purpose::Balance => Some("View balance"),
            Purpose::Statement => Some("View statement"),
            Purpose::Payout { .. } => Some("Change payout account"),
            Purpose::Delete => Some("Delete account"),
            Purpose::Remove { .. } => Some("Remove a sign-in method"),
        }
    }

    /// Where the person goes on afterwards.
    pub fn home(&self) -> &'static str {
        match self {
            Purpose::SignIn => "/demo",
            Purpose::Remove { .. } => "/demo/security",
            _ => "/demo/account",
        }
    }
}
