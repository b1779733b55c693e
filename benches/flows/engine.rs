//! A database for a benchmark, the release binary as a child process on it, and a way to ask it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use countersign::config::{Database, Storage};
use countersign::model::RelyingParty;
use countersign::{NewParty, Operator, operator};
use serde_json::Value;

use crate::watch;

/// A running engine.
pub struct Engine {
    pub address: String,
    pub key: String,
    pub rp: RelyingParty,
    pub place: Place,
    pub master_key: String,
    process: Child,
}

/// A database that is made for a benchmark, and gone after it.
pub struct Place {
    pub storage: Storage,
    url: String,
    postmaster: Option<u32>,
    folder: std::path::PathBuf,
}

impl Place {
    pub fn fresh(postgres: Option<&str>) -> Place {
        let folder = std::env::temp_dir().join(format!("countersign-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder for the benchmark");
        let file = folder.join("bench.db");
        let (url, database) = match postgres {
            None => (format!("sqlite:{}", file.display()), Database::Sqlite(file)),
            Some(server) => {
                let url = fresh_database(server);
                (url.clone(), Database::Postgres(url))
            }
        };
        Place { storage: Storage::new(database), url, postmaster: postgres.and_then(postmaster), folder }
    }

    /// A relying party in it.
    pub async fn party(&self) -> (Operator, RelyingParty) {
        let operator = operator(&self.storage, false).await.expect("the database opens");
        let new = NewParty {
            name: "Bench".to_owned(),
            host: "localhost".to_owned(),
            origins: vec!["http://localhost:1".to_owned()],
            return_urls: Vec::new(),
            test: true,
        };
        let rp = operator.create_relying_party(new).await.expect("a relying party");
        (operator, rp)
    }

    /// The database for who fills it: on PostgreSQL nobody waits until each of a million rows is on disk.
    pub fn for_seeding(&self) -> Storage {
        let mut storage = self.storage.clone();
        if let Database::Postgres(url) = &mut storage.database {
            url.push_str("?options=-c%20synchronous_commit%3Doff");
        }
        storage
    }

    /// Brings PostgreSQL to what it is some minutes after it was filled: nothing to write out, nothing to count.
    pub fn tidy(&self) {
        if let Database::Postgres(url) = &self.storage.database {
            for sql in ["vacuum analyze", "checkpoint"] {
                let done = Command::new("psql").args(["-q", "-c", sql, url]).status().expect("psql runs");
                assert!(done.success(), "{sql}");
            }
        }
    }

    /// CPU seconds of this process, with its children, and of the database server so far.
    pub fn cpu(&self, process: u32) -> (f64, f64) {
        (watch::cpu(process), self.postmaster.map(watch::cpu).unwrap_or_default())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Engine {
    pub async fn start(postgres: Option<&str>) -> Engine {
        let place = Place::fresh(postgres);
        let master_key = countersign::new_master_key().to_string();
        let address = free_address();
        let process = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["serve", "--migrate"])
            .env_clear()
            .env("COUNTERSIGN_LISTEN", &address)
            .env("COUNTERSIGN_DATABASE_URL", &place.url)
            .env("COUNTERSIGN_PUBLIC_URL", format!("http://localhost:{}", address.rsplit(':').next().expect("a port")))
            .env("COUNTERSIGN_MASTER_KEY", &master_key)
            .env("COUNTERSIGN_LOG", "warn")
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the engine starts");
        until_ready(&address).await;
        let (operator, rp) = place.party().await;
        let key = operator.create_key(&rp, Vec::new(), None).await.expect("a key").secret;
        Engine { address, key, rp, master_key, process, place }
    }

    /// CPU seconds of the engine and of its database server so far.
    pub fn cpu(&self) -> (f64, f64) {
        self.place.cpu(self.process.id())
    }

    /// MiB.
    pub fn memory(&self) -> f64 {
        watch::memory(self.process.id())
    }

    /// One call outside of any measurement.
    pub async fn call(&self, path: &str, body: &Value) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer =
            client.post(format!("http://{}{path}", self.address)).bearer_auth(&self.key).json(body).send().await;
        answer.expect("an answer").json().await.expect("JSON")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn free_address() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("its address").to_string()
}

pub async fn until_ready(address: &str) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for _ in 0..600 {
        if client.get(format!("http://{address}/readyz")).send().await.is_ok_and(|a| a.status().is_success()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{address} is not ready after 30 s");
}

/// A new database on the server.
fn fresh_database(server: &str) -> String {
    let name = format!("bench_{}", std::process::id());
    for sql in [format!("drop database if exists {name}"), format!("create database {name}")] {
        let done = Command::new("psql").args(["-q", "-c", &sql, server]).status().expect("psql runs");
        assert!(done.success(), "{sql}");
    }
    let (base, _) = server.rsplit_once('/').expect("an address with a database");
    format!("{base}/{name}")
}

/// The server's process, where it runs on this machine.
fn postmaster(server: &str) -> Option<u32> {
    let out = Command::new("psql").args(["-At", "-c", "show data_directory", server]).output().ok()?;
    let folder = String::from_utf8(out.stdout).ok()?;
    let text = std::fs::read_to_string(format!("{}/postmaster.pid", folder.trim())).ok()?;
    text.lines().next()?.trim().parse().ok()
}
