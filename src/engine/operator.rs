//! What an operator does at the command line, beside a running engine. Needs the store, and no master key.

use std::sync::Arc;

use url::Url;

use super::limits::{Pause, counted, lane_of};
use super::start::StartError;
use crate::clock::Clock;
use crate::model::{
    Actor, ApiKey, Event, Factor, Id, Kind, MethodKind, Mode, Moment, RecoveryStatus, RecoverySummary, RelyingParty,
    Rng, Scope, Timestamp, User, misleads,
};
use crate::policy::chain::ERASED;
use crate::policy::throttle;
use crate::store::{self, Store};
use crate::token;
use crate::vault::token_hash;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// An argument does not fit.
    #[error("{0}: {1}")]
    Argument(&'static str, String),
    /// There is no such thing.
    #[error("no {0} of that name or id")]
    Unknown(&'static str),
    /// It may not be done now.
    #[error("{0}")]
    Refused(String),
    /// The keys do not open.
    #[error(transparent)]
    Keys(#[from] StartError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A relying party to be made.
pub struct NewParty {
    /// What people read.
    pub name: String,
    /// RP ID.
    pub host: String,
    /// Origins of its pages.
    pub origins: Vec<String>,
    /// Addresses to return to.
    pub return_urls: Vec<String>,
    /// For trials.
    pub test: bool,
}

/// An API key that was made; its secret is seen once.
pub struct NewKey {
    /// The key.
    pub key: ApiKey,
    /// The secret.
    pub secret: String,
}

/// What an operator sees of a user.
pub struct UserState {
    /// The user, if ever named.
    pub user: Option<User>,
    /// Factors, never their secrets.
    pub factors: Vec<Factor>,
    /// Recovery codes.
    pub recovery: RecoverySummary,
    /// Methods whose guessing pauses for browsers that never passed.
    pub paused: Vec<Pause>,
    /// Devices that passed and have budgets of their own.
    pub devices: usize,
}

/// The operator's hands.
pub struct Operator {
    store: Store,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

impl Operator {
    /// On an open store.
    pub fn new(store: Store, clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Operator {
        Operator { store, clock, rng }
    }

    /// The time by the clock of the settings.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn moment(&self) -> Moment<'_> {
        Moment::new(self.clock.now(), &*self.rng)
    }

    /// Makes a relying party.
    pub async fn create_relying_party(&self, new: NewParty) -> Result<RelyingParty, OperatorError> {
        let at = self.moment();
        let name = new.name.trim().to_owned();
        if name.is_empty() || name.chars().count() > 64 || name.chars().any(misleads) || name.starts_with("rp_") {
            return Err(OperatorError::Argument(
                "--name",
                "expected 1 to 64 characters that do not begin with rp_".to_owned(),
            ));
        }
        let rp = RelyingParty {
            id: Id::new(Kind::RelyingParty, &at),
            name,
            host: rp_id(&new.host)?,
            mode: if new.test { Mode::Test } else { Mode::Live },
            origins: new.origins.iter().map(|o| origin(o)).collect::<Result<_, _>>()?,
            return_urls: new.return_urls.iter().map(|u| return_url(u)).collect::<Result<_, _>>()?,
            created_at: at.now,
        };
        if rp.origins.is_empty() {
            return Err(OperatorError::Argument("--origin", "expected at least one".to_owned()));
        }
        let event = self.event(&at, &rp.id, "relying_party.created", None);
        if !store::stood(self.store.create_relying_party(&rp, &event).await)? {
            return Err(OperatorError::Argument("--name", format!("{} is taken", rp.name)));
        }
        Ok(rp)
    }

    /// Replaces a relying party's origins and the addresses to which pages may return; an empty list leaves what there is.
    pub async fn readdress(
        &self,
        rp: RelyingParty,
        origins: &[String],
        return_urls: &[String],
    ) -> Result<RelyingParty, OperatorError> {
        let at = self.moment();
        let mut rp = rp;
        if !origins.is_empty() {
            rp.origins = origins.iter().map(|o| origin(o)).collect::<Result<_, _>>()?;
        }
        if !return_urls.is_empty() {
            rp.return_urls = return_urls.iter().map(|u| return_url(u)).collect::<Result<_, _>>()?;
        }
        let event = self.event(&at, &rp.id, "relying_party.changed", None);
        self.store.set_addresses(&rp.id, &rp.origins, &rp.return_urls, &event).await?;
        Ok(rp)
    }

    /// All relying parties, oldest first.
    pub async fn relying_parties(&self) -> Result<Vec<RelyingParty>, OperatorError> {
        Ok(self.store.relying_parties().await?)
    }

    /// One, by name or id.
    pub async fn relying_party(&self, name_or_id: &str) -> Result<RelyingParty, OperatorError> {
        self.store.find_relying_party(name_or_id).await?.ok_or(OperatorError::Unknown("relying party"))
    }

    /// Makes an API key. Without scopes it gets all but `admin`.
    pub async fn create_key(
        &self,
        rp: &RelyingParty,
        scopes: Vec<Scope>,
        lifetime_seconds: Option<i64>,
    ) -> Result<NewKey, OperatorError> {
        let at = self.moment();
        let prefix = match rp.mode {
            Mode::Live => "sk_live_",
            Mode::Test => "sk_test_",
        };
        let secret = token::opaque(prefix, &at);
        let scopes = match scopes.is_empty() {
            true => Scope::ALL.into_iter().filter(|s| *s != Scope::Admin).collect(),
            false => scopes,
        };
        let key = ApiKey {
            id: Id::new(Kind::ApiKey, &at),
            rp_id: rp.id.clone(),
            hint: format!("{prefix}…{}", &secret[secret.len() - 4..]),
            scopes,
            created_at: at.now,
            expires_at: lifetime_seconds.map(|s| at.now.plus_seconds(s)),
            revoked_at: None,
            last_used_at: None,
        };
        let event = self.event(&at, &rp.id, "api_key.created", None);
        self.store.create_api_key(&key, &token_hash(&secret), &event).await?;
        Ok(NewKey { key, secret: secret.to_string() })
    }

    /// All keys, oldest first.
    pub async fn keys(&self) -> Result<Vec<ApiKey>, OperatorError> {
        Ok(self.store.api_keys().await?)
    }

    /// Ends a key on all nodes at once.
    pub async fn revoke_key(&self, id: &str) -> Result<(), OperatorError> {
        let at = self.moment();
        let id = Id::parse(Kind::ApiKey, id).ok_or(OperatorError::Unknown("API key"))?;
        let key =
            self.store.api_keys().await?.into_iter().find(|k| k.id == id).ok_or(OperatorError::Unknown("API key"))?;
        let event = self.event(&at, &key.rp_id, "api_key.revoked", None);
        store::stood(self.store.revoke_api_key(&id, &event).await)?;
        Ok(())
    }

    /// A relying party for the demo: made, or brought to these addresses, with one fresh key and every earlier one revoked.
    pub async fn renew_demo(&self, new: NewParty) -> Result<NewKey, OperatorError> {
        let at = self.moment();
        let rp = match self.store.find_relying_party(&new.name).await? {
            Some(rp) => self.readdress(rp, &new.origins, &new.return_urls).await?,
            None => self.create_relying_party(new).await?,
        };
        self.store.revoke_api_keys_of(&rp.id, &self.event(&at, &rp.id, "api_key.all_revoked", None)).await?;
        self.create_key(&rp, Scope::ALL.to_vec(), None).await
    }

    /// What may be shown of a user.
    pub async fn show_user(&self, rp: &RelyingParty, user_id: &str) -> Result<UserState, OperatorError> {
        let at = self.moment();
        let lanes = self.store.throttles(&rp.id, user_id).await?;
        let factors = self.store.factors(&rp.id, user_id, at.now).await?;
        Ok(UserState {
            user: self.store.user(&rp.id, user_id).await?,
            recovery: self.store.recovery_summary(&rp.id, user_id, RecoveryStatus::Active).await?,
            paused: lane_of(&lanes, &factors, None, at.now)?.paused(at.now),
            devices: lanes.iter().filter(|l| l.seen_at.is_some_and(|seen| throttle::is_known(seen, at.now))).count(),
            factors,
        })
    }

    /// Ends every pause and hold of a user and fills the budgets; tells of which methods wrong proofs were counted.
    pub async fn unlock_user(&self, rp: &RelyingParty, user_id: &str) -> Result<Vec<MethodKind>, OperatorError> {
        let at = self.moment();
        let counted = counted(&self.store.throttles(&rp.id, user_id).await?)?;
        self.store.clear_throttles(&rp.id, user_id, &self.event(&at, &rp.id, "user.unlocked", Some(user_id))).await?;
        Ok(counted)
    }

    /// Removes a user's factors and recovery codes, ends the sessions and open challenges, forgets the devices and ends every
    /// pause and hold; tells which factors there were.
    pub async fn reset_user(&self, rp: &RelyingParty, user_id: &str) -> Result<Vec<Factor>, OperatorError> {
        let at = self.moment();
        let factors = self.store.factors(&rp.id, user_id, at.now).await?;
        if factors.is_empty() && self.store.user(&rp.id, user_id).await?.is_none() {
            return Err(OperatorError::Unknown("user"));
        }
        self.store.reset_user(&rp.id, user_id, &self.event(&at, &rp.id, "user.reset", Some(user_id))).await?;
        Ok(factors)
    }

    /// Writes down for every relying party that an older database has taken this one's place.
    pub async fn note_restoration(&self, erased: &[(String, String)]) -> Result<(), store::Error> {
        let at = self.moment();
        for (rp, pseudonym) in erased {
            let rp = Id::parse(Kind::RelyingParty, rp).ok_or(store::Error::Corrupt("users"))?;
            self.store.record(&self.event(&at, &rp, ERASED, Some(pseudonym))).await?;
        }
        for rp in self.store.relying_parties().await? {
            self.store.record(&self.event(&at, &rp.id, "database.restored", None)).await?;
        }
        Ok(())
    }

    fn event(&self, at: &Moment<'_>, rp: &Id, kind: &'static str, user_id: Option<&str>) -> Event {
        Event { user_id: user_id.map(str::to_owned), ..Event::new(at, rp, kind, Actor::Operator) }
    }
}

/// An RP ID: a domain in lower case, no address, no port (WebAuthn L3, 5.1.2).
fn rp_id(text: &str) -> Result<String, OperatorError> {
    let host = Url::parse(&format!("https://{text}")).ok().filter(|u| u.domain() == Some(text) && u.path() == "/");
    host.map(|_| text.to_owned()).ok_or_else(|| {
        OperatorError::Argument(
            "--rp-id",
            format!("{text} is no domain: expected as example.com or localhost, in lower case"),
        )
    })
}

/// An origin as browsers write it: https, or http on localhost.
fn origin(text: &str) -> Result<String, OperatorError> {
    let wrong = || {
        OperatorError::Argument(
            "--origin",
            format!("{text} is no origin: expected as https://example.com, or http://localhost:8080"),
        )
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let written = url.origin().ascii_serialization();
    let secure = url.scheme() == "https" || (url.scheme() == "http" && is_local(&url));
    // A browser names one host: what stands for many would never match.
    let is_one = !written.contains('*');
    (secure && is_one && text.trim_end_matches('/') == written).then_some(written).ok_or_else(wrong)
}

/// A return address: https, or http on localhost; kept letter by letter, because it is compared so.
fn return_url(text: &str) -> Result<String, OperatorError> {
    let url = Url::parse(text).ok().filter(|u| u.scheme() == "https" || (u.scheme() == "http" && is_local(u)));
    let good = url.is_some_and(|u| u.fragment().is_none() && u.username().is_empty() && u.password().is_none());
    good.then(|| text.to_owned()).ok_or_else(|| {
        OperatorError::Argument(
            "--return-url",
            format!("{text}: expected https, or http on localhost, without a fragment"),
        )
    })
}

fn is_local(url: &Url) -> bool {
    url.host_str().is_some_and(|h| h == "localhost" || h.ends_with(".localhost") || h == "127.0.0.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rp_id_is_a_domain() {
        for good in ["localhost", "example.com", "mfa.example.co.uk"] {
            assert!(rp_id(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1", "https://example.com", "example.com:8080", "Example.com", "example.com/", "", "a b"] {
            assert!(rp_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for good in ["https://example.com", "https://example.com:8443", "http://localhost:8080", "https://example.com/"]
        {
            assert!(origin(good).is_ok(), "{good}");
        }
        for bad in [
            "http://example.com",
            "https://example.com/path",
            "example.com",
            "https://EXAMPLE.com",
            "https://u@example.com",
            "null",
            "https://example.com:443",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_return_address_is_kept_as_it_was_given() {
        assert_eq!(return_url("https://example.com/Back?x=1").ok().as_deref(), Some("https://example.com/Back?x=1"));
        for bad in [
            "http://example.com/",
            "https://example.com/#f",
            "javascript:alert(1)",
            "/back",
            "https://u:p@example.com/",
        ] {
            assert!(return_url(bad).is_err(), "{bad}");
        }
    }
}
