//! Twilio's Messages API: a form, answered with 201.

use reqwest::StatusCode;
use serde::Deserialize;

use super::{Provider, ProviderError, Refused, client, judge};
use crate::config;
use crate::model::Message;

/// What Twilio has against the number, by its error codes (twilio.com/docs/api/errors): it is none, its owner has opted out, it is no
/// mobile one, or a landline. What else comes with a 400 is about the sender or the account.
const OF_THE_NUMBER: [u32; 4] = [21211, 21610, 21614, 21635];

#[derive(Deserialize)]
struct Fault {
    code: u32,
}

/// One Twilio account.
pub struct Twilio {
    settings: config::Twilio,
    client: reqwest::Client,
}

impl Twilio {
    pub fn new(settings: config::Twilio) -> Result<Twilio, ProviderError> {
        Ok(Twilio { client: client("twilio", &settings.url)?, settings })
    }
}

#[async_trait::async_trait]
impl Provider for Twilio {
    fn name(&self) -> &'static str {
        "twilio"
    }

    async fn send(&self, message: &Message) -> Result<(), Refused> {
        let settings = &self.settings;
        let path = format!("/2010-04-01/Accounts/{}/Messages.json", settings.account_sid);
        let url = settings.url.join(&path).map_err(|_| Refused::Barred)?;
        let sender = if settings.from.starts_with("MG") { "MessagingServiceSid" } else { "From" };
        let form = [("To", message.to.as_str()), (sender, &settings.from), ("Body", &message.text)];
        let request = self.client.post(url).basic_auth(&settings.account_sid, Some(settings.auth_token.0.as_str()));
        match request.form(&form).send().await {
            Ok(answer) if answer.status() == StatusCode::BAD_REQUEST => match answer.json::<Fault>().await {
                Ok(fault) if OF_THE_NUMBER.contains(&fault.code) => Err(Refused::Rejected),
                _ => Err(Refused::Barred),
            },
            answer => judge(answer),
        }
    }
}
