//! A browser without JavaScript: it keeps cookies, fills in forms as they stand on the page, and follows redirects when told to.

use crate::visitor::{IDLE, unescaped};
use reqwest::header::{COOKIE, HeaderMap, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Client, StatusCode};

/// A browser without JavaScript.
pub struct Guest {
    pub client: Client,
    pub origin: String,
}

/// What a browser was given.
pub struct Page {
    pub status: StatusCode,
    pub body: String,
    headers: HeaderMap,
    address: String,
    client: Client,
}

impl Guest {
    /// Opens a page of the application, or an address.
    pub async fn get(&self, path: &str) -> Page {
        get(&self.client, &self.absolute(path)).await
    }

    /// Opens a page with just this cookie.
    pub async fn get_with(&self, path: &str, cookie: &str) -> Page {
        let address = self.absolute(path);
        page(self.client.clone(), &address, self.client.get(&address).header(COOKIE, cookie)).await
    }

    /// Posts a form as it stands.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)], from: Option<&str>) -> Page {
        let address = self.absolute(path);
        let mut request = self.client.post(&address).form(fields);
        if let Some(from) = from {
            request = request.header(ORIGIN, from);
        }
        page(self.client.clone(), &address, request).await
    }

    /// Fills in the form of the account page that goes to this path.
    pub async fn press(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let shown = match self.get("/demo/account").await {
            shown if shown.status == StatusCode::OK => shown,
            _ => self.get("/demo").await,
        };
        self.post_from(&shown, path, fields).await
    }

    /// Fills in the form of one page that goes to a path.
    pub async fn press_on(&self, shown: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let shown = self.get(shown).await;
        self.post_from(&shown, path, fields).await
    }

    async fn post_from(&self, shown: &Page, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = shown.field("csrf");
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", csrf.as_str())]).collect();
        self.post(path, &fields, Some(&self.origin)).await
    }

    /// Name and password; where that leads.
    pub async fn log_in(&self, name: &str) -> Page {
        self.press_on("/demo", "/demo", &[("username", name), ("password", "harbour")]).await
    }

    /// Opens a hosted page by its link: the landing page, then the page itself.
    pub async fn open(&self, url: &str) -> Page {
        let landing = self.get(url).await;
        let token = landing.field("token");
        self.send(&landing, &[("token", &token), ("probe", "1")]).await.follow().await
    }

    /// Posts a form of a hosted page to that page, with its guard.
    pub async fn send(&self, shown: &Page, fields: &[(&str, &str)]) -> Page {
        let guard = if shown.body.contains("name=\"guard\"") { shown.field("guard") } else { String::new() };
        let address = url::Url::parse(&shown.address).expect("an address");
        let origin = address.origin().ascii_serialization();
        let fields: Vec<_> = fields.iter().copied().chain([("guard", guard.as_str())]).collect();
        self.post(&format!("{origin}{}", address.path()), &fields, Some(&origin)).await
    }

    /// Answers a challenge by its link; the address to which the hosted page returns.
    pub async fn answer(&self, url: &str, method: &str, code: &str) -> String {
        let shown = self.open(url).await;
        self.answer_shown(&shown, method, code).await
    }

    /// Answers a challenge that is shown.
    pub async fn answer_shown(&self, shown: &Page, method: &str, code: &str) -> String {
        let done = self.send(shown, &[("do", "answer"), ("method", method), ("code", code)]).await.follow().await;
        done.link("/demo/return?")
    }

    /// Cancels a challenge by its link; the address to which the hosted page returns.
    pub async fn cancel(&self, url: &str) -> String {
        let shown = self.open(url).await;
        self.send(&shown, &[("do", "cancel")]).await.follow().await.link("/demo/return?")
    }

    fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => format!("{}{path}", self.origin),
            false => path.to_owned(),
        }
    }
}

impl Page {
    /// Whether it says this, as a person reads it.
    pub fn says(&self, words: &str) -> bool {
        unescaped(&self.body).contains(words)
    }

    /// Whether its main part says this, whatever stands beside.
    pub fn shows(&self, words: &str) -> bool {
        let main = self.body.split("<main").nth(1).and_then(|rest| rest.split("</main>").next());
        unescaped(main.unwrap_or_default()).contains(words)
    }

    /// The value of a hidden field.
    pub fn field(&self, name: &str) -> String {
        let (_, rest) = self
            .body
            .split_once(&format!("name=\"{name}\" value=\""))
            .unwrap_or_else(|| panic!("no field {name} at {} ({}):\n{}", self.address, self.status, self.body));
        rest.split('"').next().unwrap_or_default().to_owned()
    }

    /// Where its first link goes that has this in it.
    pub fn link(&self, part: &str) -> String {
        let links =
            self.body.split("href=\"").skip(1).map(|rest| unescaped(rest.split('"').next().unwrap_or_default()));
        let found = links.into_iter().find(|link| link.contains(part));
        let link = found
            .unwrap_or_else(|| panic!("no link with {part} at {} ({}):\n{}", self.address, self.status, self.body));
        url::Url::parse(&self.address).and_then(|base| base.join(&link)).expect("a link").into()
    }

    /// Where it redirects; empty where it does not.
    pub fn location(&self) -> String {
        self.header(LOCATION.as_str())
    }

    /// The cookie that it sets.
    pub fn cookie(&self) -> Option<String> {
        let text = self.header(SET_COOKIE.as_str());
        (!text.is_empty()).then_some(text)
    }

    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    }

    /// Goes where it redirects.
    pub async fn follow(&self) -> Page {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}:\n{}", self.address, self.body);
        let target = url::Url::parse(&self.address).and_then(|base| base.join(&self.location())).expect("an address");
        get(&self.client, target.as_str()).await
    }
}

async fn get(client: &Client, address: &str) -> Page {
    page(client.clone(), address, client.get(address)).await
}

async fn page(client: Client, address: &str, request: reqwest::RequestBuilder) -> Page {
    let response = request.send().await.unwrap_or_else(|error| panic!("{address}: {error}"));
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.text().await.expect("a body");
    Page { status, body, headers, address: address.to_owned(), client }
}

pub fn client() -> Client {
    let builder = Client::builder().tls_certs_only([]).no_proxy().cookie_store(true);
    builder.redirect(reqwest::redirect::Policy::none()).pool_idle_timeout(IDLE).build().expect("a client")
}
