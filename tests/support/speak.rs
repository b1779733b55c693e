//! Calls over HTTP. Every answer is held against the OpenAPI document before the test sees it.

use std::ops::Index;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::document::Received;
use super::world::World;

/// Somebody who calls the engine.
#[derive(Clone)]
pub struct Caller {
    pub world: Arc<World>,
    headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// `null` where there is none.
    pub body: Value,
    /// The body to the byte.
    pub bytes: Vec<u8>,
    call: String,
}

impl Caller {
    pub fn new(world: Arc<World>) -> Caller {
        Caller { world, headers: Vec::new() }
    }

    /// The same with one more header.
    pub fn with(&self, name: &str, value: &str) -> Caller {
        let mut caller = self.clone();
        caller.headers.push((name.to_owned(), value.to_owned()));
        caller
    }

    /// The same, at another node.
    pub fn at(&self, world: &Arc<World>) -> Caller {
        Caller { world: Arc::clone(world), ..self.clone() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    /// A POST without a body.
    pub async fn ask(&self, path: &str) -> Answer {
        self.call(Method::POST, path, None).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        match body {
            None => self.raw(method, path, None, Vec::new()).await,
            Some(body) => self.raw(method, path, Some("application/json"), body.to_string().into_bytes()).await,
        }
    }

    /// Any bytes of any type.
    pub async fn raw(&self, method: Method, path: &str, content_type: Option<&str>, body: Vec<u8>) -> Answer {
        self.sent(method, path, content_type, body).await.expect("the engine answers")
    }

    /// A POST, or a DELETE where there is no body; `None` where no whole answer comes, as from a process that is killed.
    pub async fn attempt(&self, path: &str, body: Option<Value>) -> Option<Answer> {
        match body {
            Some(body) => {
                self.sent(Method::POST, path, Some("application/json"), body.to_string().into_bytes()).await.ok()
            }
            None => self.sent(Method::DELETE, path, None, Vec::new()).await.ok(),
        }
    }

    async fn sent(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.world.client.request(method.clone(), self.world.url(path));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let response = request.body(body).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?;
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())),
        };
        let bytes = bytes.to_vec();
        let answer = Answer { status, headers, body, bytes, call: format!("{method} {path}") };
        let received = Received { method: method.as_str(), path, status, headers: &answer.headers, body: &answer.body };
        let faults = self.world.document().await.faults(&received);
        assert!(faults.is_empty(), "{}: {status} {}\n{}", answer.call, answer.body, faults.join("\n"));
        Ok(answer)
    }
}

impl Answer {
    /// The body of an answer with this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.call, self.body);
        self.body
    }

    /// The problem of this status and code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.code()), (status, code), "{}: {}", self.call, self.body);
        self.body
    }

    /// The 422 of `request_invalid` that names this member.
    #[track_caller]
    pub fn invalid(self, param: &str) -> Value {
        let problem = self.refused(422, "request_invalid");
        assert_eq!(problem["param"], param, "{problem}");
        problem
    }

    /// The code of a problem; empty otherwise.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().filter(|_| self.status >= 400).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Index<&str> for Answer {
    type Output = Value;

    fn index(&self, member: &str) -> &Value {
        &self.body[member]
    }
}
