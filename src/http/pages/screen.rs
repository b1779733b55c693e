//! The frame of every page, its headers, and the plain page that says something and offers what to do.

use askama::Template;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::words::When;

/// Nothing inline, nothing of another origin, never in a frame (C-08).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'";
/// C-13
const PERMISSIONS: &str = "publickey-credentials-get=(self), publickey-credentials-create=(self), otp-credentials=(self), camera=(), microphone=(), geolocation=()";

/// The answer that shows a template.
pub fn show(status: StatusCode, screen: &impl Template) -> Response {
    let Ok(html) = screen.render() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let headers =
        [(header::CONTENT_SECURITY_POLICY, POLICY), (HeaderName::from_static("permissions-policy"), PERMISSIONS)];
    (status, headers, Html(html)).into_response()
}

/// What frames every page.
#[derive(Clone)]
pub struct Shell {
    /// The relying party's name.
    pub app: String,
    /// The one H1.
    pub heading: String,
    /// Something was refused: the title says so.
    pub is_error: bool,
}

impl Shell {
    /// A page of this relying party.
    pub fn new(app: &str, heading: &str) -> Shell {
        Shell { app: app.to_owned(), heading: heading.to_owned(), is_error: false }
    }

    /// The first letter of the name, for the mark beside it.
    pub fn initial(&self) -> String {
        self.app.chars().next().map(|c| c.to_uppercase().collect()).unwrap_or_default()
    }
}

/// Something to press on a message.
#[derive(Clone)]
pub struct Action {
    /// What it says.
    pub label: String,
    /// Where it leads.
    pub target: String,
    /// The form's fields, where it changes something.
    pub fields: Option<Vec<(String, String)>>,
    /// `primary`, `quiet` or `danger`
    pub weight: &'static str,
}

/// A page that says something and offers what to do.
#[derive(Template)]
#[template(path = "message.html")]
pub struct Message {
    /// The frame.
    pub shell: Shell,
    /// `done`, `stopped`, or empty
    pub mark: &'static str,
    /// Paragraphs.
    pub lines: Vec<String>,
    /// What can be done again, and when.
    pub until: Option<(&'static str, When)>,
    /// What to do.
    pub actions: Vec<Action>,
    /// Goes on by itself.
    pub refresh: Option<String>,
    /// Its first link is made anew where it was read for long.
    pub renew: bool,
    /// For support.
    pub reference: Option<String>,
}

impl Message {
    /// A page with a heading.
    pub fn new(app: &str, heading: &str) -> Message {
        let shell = Shell::new(app, heading);
        Message {
            shell,
            mark: "",
            lines: Vec::new(),
            until: None,
            actions: Vec::new(),
            refresh: None,
            renew: false,
            reference: None,
        }
    }

    /// The first link holds a code that lives a minute, and there is something to read.
    pub fn renewed(self) -> Message {
        Message { renew: true, ..self }
    }

    /// It went well.
    pub fn done(self) -> Message {
        Message { mark: "done", ..self }
    }

    /// It goes no further.
    pub fn stopped(self) -> Message {
        Message { mark: "stopped", ..self }
    }

    /// One more paragraph.
    pub fn line(mut self, text: impl Into<String>) -> Message {
        self.lines.push(text.into());
        self
    }

    /// What can be done again at this time.
    pub fn until(self, what: &'static str, when: When) -> Message {
        Message { until: Some((what, when)), ..self }
    }

    /// A link; the first action is the primary one.
    pub fn link(self, label: &str, target: &str) -> Message {
        self.action(label, target, None)
    }

    /// A button that posts.
    pub fn post(self, label: &str, target: &str, fields: &[(&str, &str)]) -> Message {
        let fields = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.action(label, target, Some(fields))
    }

    /// A button that posts and takes something away.
    pub fn danger(self, label: &str, target: &str, fields: &[(&str, &str)]) -> Message {
        let mut page = self.post(label, target, fields);
        if let Some(last) = page.actions.last_mut() {
            last.weight = "danger";
        }
        page
    }

    fn action(mut self, label: &str, target: &str, fields: Option<Vec<(String, String)>>) -> Message {
        let weight = if self.actions.is_empty() { "primary" } else { "quiet" };
        self.actions.push(Action { label: label.to_owned(), target: target.to_owned(), fields, weight });
        self
    }

    /// Goes on there by itself.
    pub fn refresh(self, target: &str) -> Message {
        Message { refresh: Some(target.to_owned()), ..self }
    }

    /// Shows the request's id.
    pub fn reference(self, request_id: &str) -> Message {
        Message { reference: Some(request_id.to_owned()), ..self }
    }

    /// The answer; the title of one that refuses says so.
    pub fn respond(mut self, status: StatusCode) -> Response {
        self.shell.is_error = status.is_client_error() || status.is_server_error();
        show(status, &self)
    }
}
