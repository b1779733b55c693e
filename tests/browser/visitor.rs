//! A browser without scripts: a client that keeps cookies, sends forms as they stand on the page, and follows on its own site.

use std::time::Duration;

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Client, Response, StatusCode};

/// A connection that was idle for longer is not used again: the engine closes it after 15 seconds, perhaps just then.
pub const IDLE: Duration = Duration::from_secs(10);

/// Somebody with a browser.
pub struct Visitor {
    pub client: Client,
    pub base: String,
}

/// A page that was answered.
pub struct Page {
    pub status: StatusCode,
    pub path: String,
    pub headers: HeaderMap,
    pub html: String,
}

impl Visitor {
    pub fn new(base: &str) -> Visitor {
        let client = Client::builder()
            .tls_certs_only([])
            .cookie_store(true)
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(IDLE)
            .build()
            .expect("a client");
        Visitor { client, base: base.to_owned() }
    }

    /// Goes to an address and on from there.
    pub async fn go(&self, url: &str) -> Page {
        let url = if url.starts_with('/') { format!("{}{url}", self.base) } else { url.to_owned() };
        let answer = self.client.get(url).send().await.expect("an answer");
        self.follow(answer).await
    }

    /// Sends the form whose button says this, with these fields filled in.
    pub async fn send(&self, page: &Page, button: &str, filled: &[(&str, &str)]) -> Page {
        let (action, mut fields) = page.form(button);
        for (name, value) in filled {
            fields.retain(|(n, _)| n != name);
            fields.push(((*name).to_owned(), (*value).to_owned()));
        }
        self.post(&action, &fields).await
    }

    /// Posts fields to an address of the engine, as its own page would.
    pub async fn post(&self, path: &str, fields: &[(String, String)]) -> Page {
        let call = self.client.post(format!("{}{path}", self.base)).header("origin", &self.base).form(fields);
        self.follow(call.send().await.expect("an answer")).await
    }

    /// Opens a link: lands, and presses on.
    pub async fn open(&self, url: &str) -> Page {
        let landing = self.go(url).await;
        self.send(&landing, "Continue", &[]).await
    }

    async fn follow(&self, mut answer: Response) -> Page {
        while answer.status().is_redirection() {
            let target = answer.headers()[LOCATION].to_str().expect("an address").to_owned();
            assert!(target.starts_with('/'), "a form is never sent on to another origin: {target}");
            answer = self.client.get(format!("{}{target}", self.base)).send().await.expect("an answer");
        }
        Page {
            status: answer.status(),
            path: answer.url().path().to_owned(),
            headers: answer.headers().clone(),
            html: answer.text().await.expect("text"),
        }
    }
}

impl Page {
    /// Fails unless the page holds these words.
    pub fn says(&self, words: &str) -> &Page {
        assert!(self.text().contains(words), "{} {} does not say {words:?}:\n{}", self.status, self.path, self.text());
        self
    }

    /// What a person can read.
    pub fn text(&self) -> String {
        let (mut text, mut inside) = (String::new(), false);
        for letter in self.html.chars() {
            match letter {
                '<' => inside = true,
                '>' => inside = false,
                _ if !inside => text.push(letter),
                _ => {}
            }
        }
        let text = unescaped(&text);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The title.
    pub fn title(&self) -> String {
        let start = self.html.find("<title>").expect("a title") + 7;
        unescaped(&self.html[start..start + self.html[start..].find('<').expect("its end")])
    }

    /// The address of the first link whose text begins so.
    pub fn link(&self, text: &str) -> String {
        let links = self.html.split("<a ").skip(1);
        let found =
            links.filter(|link| link.split_once('>').is_some_and(|(_, rest)| rest.trim_start().starts_with(text)));
        let link = found.map(|l| attribute(l, "href")).next();
        link.unwrap_or_else(|| panic!("no link {text:?} in {}", self.text()))
    }

    /// The address of the first link that holds this text.
    pub fn html_link(&self, text: &str) -> String {
        let links = self.html.split("<a ").skip(1).filter_map(|link| link.split("</a>").next());
        let link = links.filter(|link| link.contains(text)).map(|l| attribute(l, "href")).next();
        link.unwrap_or_else(|| panic!("no link with {text:?} in {}", self.text()))
    }

    /// Where the page goes by itself.
    pub fn refresh(&self) -> Option<String> {
        let tag = self.html.split("http-equiv=\"refresh\"").nth(1)?;
        attribute(tag, "content").split_once("url=").map(|(_, url)| url.to_owned())
    }

    /// Where the form of this button goes, and its fields as they stand, the button's own with them.
    fn form(&self, button: &str) -> (String, Vec<(String, String)>) {
        for form in self.html.split("<form ").skip(1).filter_map(|f| f.split("</form>").next()) {
            let buttons = form.split("<button ").skip(1);
            let pressed = buttons
                .filter(|b| b.split_once('>').is_some_and(|(_, rest)| rest.trim_start().starts_with(button)))
                .map(|b| b.split('>').next().unwrap_or_default())
                .next();
            let Some(pressed) = pressed else { continue };
            let elsewhere = attribute(pressed, "form");
            let form = match elsewhere.is_empty() {
                true => form,
                false => self.html.split("<form ").find(|f| attribute(f, "id") == elsewhere).expect("its form"),
            };
            let form = form.split("</form>").next().unwrap_or_default();
            let inputs = form.split("<input ").skip(1).map(|i| i.split('>').next().unwrap_or_default());
            let sent = inputs.filter(|i| !i.contains("type=\"checkbox\""));
            let mut fields: Vec<_> = sent.map(|i| (attribute(i, "name"), attribute(i, "value"))).collect();
            if pressed.contains("name=") {
                fields.push((attribute(pressed, "name"), attribute(pressed, "value")));
            }
            return (attribute(form, "action"), fields);
        }
        panic!("no button {button:?} on {}:\n{}", self.path, self.text());
    }
}

fn attribute(tag: &str, name: &str) -> String {
    let tag = format!(" {tag}");
    let value = tag.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
    unescaped(value.unwrap_or_default())
}

/// What the forms of a page carry against forgery, and the calls of its module.
pub fn guard(html: &str) -> &str {
    let found = ["name=\"guard\" value=\"", "data-guard=\""].iter().find_map(|mark| html.split(mark).nth(1));
    found.and_then(|rest| rest.split('"').next()).expect("a guard")
}

/// Text of a page without its entities.
pub fn unescaped(text: &str) -> String {
    [("&amp;", "&"), ("&#38;", "&"), ("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
