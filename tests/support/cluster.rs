//! A PostgreSQL server of one test's own, which it may stop, kill and start again, and a road to it that can be closed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::port::free_port;

/// A throwaway server.
pub struct Cluster {
    folder: PathBuf,
    binaries: PathBuf,
    pub port: u16,
    options: String,
}

impl Cluster {
    /// `None` where the tests have no PostgreSQL. These options are given to the server.
    pub fn start(options: &str) -> Option<Cluster> {
        std::env::var("COUNTERSIGN_TEST_POSTGRES").ok()?;
        Some(Cluster::make(options))
    }

    /// The same, wherever PostgreSQL is installed.
    pub fn make(options: &str) -> Cluster {
        let binaries = binaries().expect("initdb and pg_ctl are on PATH or where Debian keeps them");
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("countersign-cluster-{}-{port}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let cluster = Cluster { folder, binaries, port, options: options.to_owned() };
        if is_root() {
            assert!(Command::new("chown").arg("postgres").arg(&cluster.folder).status().is_ok_and(|s| s.success()));
        }
        let data = cluster.data();
        cluster.run("initdb", &["--pgdata", &data, "--auth=trust", "--username=postgres", "--no-locale", "--no-sync"]);
        cluster
    }

    pub fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    /// A certificate for 127.0.0.1 by an authority of its own, whose certificate's path it gives; `None` without openssl. From
    /// now on the server takes connections by TLS alone.
    pub fn certify(&self) -> Option<String> {
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            command.args(arguments.split(' ')).current_dir(&self.folder).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|s| s.success())
        };
        std::fs::write(self.folder.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("a file");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let made = openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test"))
            && openssl(&format!("req {key} -keyout data/server.key -out server.csr -subj /CN=127.0.0.1"))
            && openssl(
                "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out data/server.crt",
            );
        if !made {
            return None;
        }
        if is_root() {
            for file in ["server.key", "server.crt"] {
                let path = self.folder.join("data").join(file);
                assert!(Command::new("chown").arg("postgres").arg(&path).status().is_ok_and(|s| s.success()));
            }
        }
        std::fs::write(self.folder.join("data/pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").expect("a file");
        Some(self.folder.join("ca.pem").display().to_string())
    }

    /// As the server's owner.
    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.binaries.join(program);
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("runuser");
                command.args(["-u", "postgres", "--"]).arg(program);
                command
            }
            false => Command::new(program),
        };
        let log = std::fs::File::options().append(true).create(true).open(self.folder.join("log")).expect("a log");
        let errors = log.try_clone().expect("a log");
        let done = command.args(arguments).current_dir(&self.folder).stdin(Stdio::null()).stdout(log).stderr(errors);
        let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(done.status().expect("it runs").success(), "{arguments:?}\n{}", log());
    }

    /// Starts the server, and waits until it takes connections.
    pub fn up(&self) {
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories='{}' {}",
            self.port,
            self.folder.display(),
            self.options
        );
        let log = self.folder.join("server.log").display().to_string();
        self.run("pg_ctl", &["--pgdata", &self.data(), "--log", &log, "--wait", "--options", &options, "start"]);
    }

    /// Ends it: `fast` in good order, `immediate` as a crash would.
    pub fn down(&self, mode: &str) {
        self.run("pg_ctl", &["--pgdata", &self.data(), "--wait", "--mode", mode, "stop"]);
    }

    /// The address of its database, over this port.
    pub fn url(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/postgres")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.folder.join("data/postmaster.pid").exists() {
            self.down("immediate");
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.starts_with(b"0\n"))
}

fn binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<_> = versions.flatten().map(|v| v.path().join("bin")).collect();
        versions.sort();
        folders.extend(versions.into_iter().rev());
    }
    folders.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("pg_ctl").exists())
}

/// How a road is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// What is sent arrives.
    Open,
    /// Every connection breaks, and none is made.
    Cut,
    /// Connections stay, and nothing arrives: what is sent waits.
    Silent,
}

/// A port that leads to a server.
pub struct Road {
    pub port: u16,
    state: Arc<watch::Sender<State>>,
    ready: Arc<AtomicU64>,
}

/// PostgreSQL's ReadyForQuery, up to the state that it names: it has said all and waits for the other side.
const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];

impl Road {
    pub async fn to(server: u16) -> Road {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(watch::Sender::new(State::Open));
        let ready = Arc::new(AtomicU64::new(0));
        let (watched, counted) = (Arc::clone(&state), Arc::clone(&ready));
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let (watched, counted) = (Arc::clone(&watched), Arc::clone(&counted));
                tokio::spawn(async move {
                    if *watched.borrow() == State::Cut {
                        return;
                    }
                    let Ok(to) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let (from_read, from_write) = from.into_split();
                    let (to_read, to_write) = to.into_split();
                    let mut cut = watched.subscribe();
                    tokio::select! {
                        () = carry(from_read, to_write, watched.subscribe(), None) => {}
                        () = carry(to_read, from_write, watched.subscribe(), Some(&*counted)) => {}
                        _ = cut.wait_for(|s| *s == State::Cut) => {}
                    }
                });
            }
        });
        Road { port, state, ready }
    }

    /// How often the server has said that it is ready for the next question: once a round trip.
    pub fn round_trips(&self) -> u64 {
        self.ready.load(Ordering::SeqCst)
    }

    pub fn is(&self, state: State) {
        self.state.send_replace(state);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    ready: Option<&AtomicU64>,
) {
    let mut buffer = vec![0; 16384];
    let mut end = Vec::new();
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // The last bytes of all that came so far: a message may arrive in pieces.
        end.extend_from_slice(&buffer[..read]);
        end.drain(..end.len().saturating_sub(READY.len() + 1));
        if let Some(ready) = ready.filter(|_| end.starts_with(&READY)) {
            ready.fetch_add(1, Ordering::SeqCst);
        }
        if state.wait_for(|s| *s != State::Silent).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
