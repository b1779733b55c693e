//! The generic gateway: each text is POSTed as JSON; any 2xx is accepted (api.md, 8).

use serde_json::json;

use super::{Provider, ProviderError, Refused, client, judge};
use crate::model::Message;

/// A gateway behind one address.
pub struct Http {
    url: url::Url,
    client: reqwest::Client,
}

impl Http {
    pub fn new(url: url::Url) -> Result<Http, ProviderError> {
        Ok(Http { client: client("http", &url)?, url })
    }
}

#[async_trait::async_trait]
impl Provider for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    async fn send(&self, message: &Message) -> Result<(), Refused> {
        let body = json!({"id": message.id, "to": message.to, "text": message.text.as_str(), "rp": message.rp_id});
        judge(self.client.post(self.url.clone()).json(&body).send().await)
    }
}
