//! The real binary as a process of its own, with an environment that the test alone makes.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::database::Scratch;
pub use super::port::free_port;

/// What a command printed and how it ended.
pub struct Ended {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary under test.
pub const OWN: &str = env!("CARGO_BIN_EXE_countersign");

/// Runs a command to its end.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    run_of(OWN, arguments, environment)
}

/// The same with another binary.
pub fn run_of(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let output = command(binary, arguments, environment).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ended { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The same, with what it answers going elsewhere.
pub fn run_into(stdout: impl Into<Stdio>, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let child = command(OWN, arguments, environment).stdout(stdout).stderr(Stdio::piped()).spawn();
    let output = child.and_then(Child::wait_with_output).expect("the binary runs");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    Ended { status: output.status.code(), stdout: String::new(), stderr }
}

fn command(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments).env_clear().envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

/// A `countersign serve`, a demo or another command, that runs until it ends, is told to, or is dropped.
pub struct Serve {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
    pub port: u16,
}

impl Serve {
    /// Starts it and waits until it serves. The settings must name `COUNTERSIGN_LISTEN` with this port.
    pub async fn start(port: u16, environment: &[(&str, &str)]) -> Serve {
        Serve::start_of(OWN, port, environment).await
    }

    /// The same with another binary.
    pub async fn start_of(binary: &str, port: u16, environment: &[(&str, &str)]) -> Serve {
        let serve = Serve::spawn_of(binary, &["serve"], port, environment);
        serve.ready().await;
        serve
    }

    /// Starts the demo in this folder, and waits until it serves.
    pub async fn demo(port: u16, data: &str) -> Serve {
        let arguments = ["demo", "--listen", &format!("127.0.0.1:{port}"), "--data", data];
        let demo = Serve::spawn_of(OWN, &arguments, port, &[]);
        demo.ready().await;
        demo
    }

    /// Starts it.
    pub fn spawn(port: u16, environment: &[(&str, &str)]) -> Serve {
        Serve::spawn_of(OWN, &["serve"], port, environment)
    }

    /// Starts it, with its log going elsewhere.
    pub fn spawn_into(stderr: impl Into<Stdio>, port: u16, environment: &[(&str, &str)]) -> Serve {
        let started = command(OWN, &["serve"], environment).stdout(Stdio::piped()).stderr(stderr).spawn();
        Serve { child: started.expect("the binary runs"), stderr: Arc::default(), reader: None, port }
    }

    /// Starts another binary, or with other arguments.
    pub fn spawn_of(binary: &str, arguments: &[&str], port: u16, environment: &[(&str, &str)]) -> Serve {
        let mut child = command(binary, arguments, environment)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let stderr = Arc::new(Mutex::new(String::new()));
        let (mut pipe, kept) = (child.stderr.take().expect("a pipe"), Arc::clone(&stderr));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                kept.lock().expect("no test panics with it").push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Serve { child, stderr, reader: Some(reader), port }
    }

    /// Waits until it serves.
    pub async fn ready(&self) {
        let client = client();
        for _ in 0..2400 {
            let ready = client.get(self.url("/readyz")).send().await;
            if ready.is_ok_and(|r| r.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("it does not serve: {}", self.stderr());
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What it has logged so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no test panics with it").clone()
    }

    /// Where its log gathers, past its end too.
    pub fn log(&self) -> Arc<Mutex<String>> {
        Arc::clone(&self.stderr)
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM; gives the status and what came on stdout.
    pub fn terminate(self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(sent.success());
        let ended = self.ended();
        (ended.status, ended.stdout)
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> Ended {
        let mut stdout = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut stdout).expect("UTF-8");
        let status = self.child.wait().expect("it ends").code();
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it reads to the end");
        }
        Ended { status, stdout, stderr: self.stderr() }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that was idle for longer is not used again: the engine closes it after 15 seconds, perhaps just then.
pub const IDLE: Duration = Duration::from_secs(10);

/// A client that needs no CA bundle.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().tls_certs_only([]).pool_idle_timeout(IDLE).build().expect("a client")
}

/// Settings of an installation of its own: a database, a port, a master key, and the commands that run on it.
pub struct Place {
    pub scratch: Scratch,
    pub port: u16,
    pub environment: Vec<(String, String)>,
}

impl Place {
    pub async fn new() -> Place {
        Place::on(Scratch::new().await)
    }

    /// On this database.
    pub fn on(scratch: Scratch) -> Place {
        let port = free_port();
        let mut place = Place { port, environment: Vec::new(), scratch };
        place.set("COUNTERSIGN_LISTEN", &format!("127.0.0.1:{port}"));
        place.set("COUNTERSIGN_PUBLIC_URL", &format!("http://localhost:{port}"));
        place.set("COUNTERSIGN_DATABASE_URL", &place.scratch.url());
        place.set("COUNTERSIGN_MASTER_KEY", &countersign::new_master_key());
        place
    }

    /// Sets a setting, or sets it anew.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(n, _)| n != name);
    }

    pub fn setting(&self, name: &str) -> &str {
        self.environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).expect("a setting")
    }

    /// What the commands are given.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        run(arguments, &self.pairs())
    }

    /// Starts a command that goes on by itself.
    pub fn start(&self, arguments: &[&str]) -> Child {
        command(OWN, arguments, &self.pairs())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs")
    }

    /// The same, with its messages at hand while it runs.
    pub fn start_heard(&self, arguments: &[&str]) -> Serve {
        Serve::spawn_of(OWN, arguments, self.port, &self.pairs())
    }

    /// The JSON that a command answers.
    #[track_caller]
    pub fn answer(&self, arguments: &[&str]) -> Value {
        let ended = self.run(arguments);
        assert_eq!(ended.status, Some(0), "{arguments:?}: {}", ended.stderr);
        serde_json::from_str(&ended.stdout).expect("JSON")
    }

    pub async fn serve(&self) -> Serve {
        if !self.scratch.is_sqlite() {
            self.run(&["migrate"]);
        }
        Serve::start(self.port, &self.pairs()).await
    }

    /// The relying party `Bank`, made, and somebody who calls with a new key of it.
    pub fn bank(&self) -> Client {
        let rp =
            ["rp", "create", "--name", "Bank", "--rp-id", "bank.example", "--origin", "https://bank.example", "--json"];
        self.answer(&rp);
        self.caller(&self.key("Bank"))
    }

    /// A new key's secret.
    pub fn key(&self, rp: &str) -> String {
        let key = self.answer(&["key", "create", "--rp", rp, "--json"]);
        key["secret"].as_str().expect("a secret").to_owned()
    }

    pub fn caller(&self, token: &str) -> Client {
        Client { client: client(), base: format!("http://127.0.0.1:{}", self.port), token: token.to_owned() }
    }
}

/// Somebody who calls the process over HTTP.
#[derive(Clone)]
pub struct Client {
    pub client: reqwest::Client,
    pub base: String,
    pub token: String,
}

impl Client {
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send("POST", path, Some(body)).await
    }

    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }
}
