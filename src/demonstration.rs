//! The demo put together: an engine in a data folder of its own, and the demo application as its relying party.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::clock::{Clock as _, SystemClock, SystemRng};
use crate::config::{Config, Database, LocalProvider, Secret, Sms, Storage};
use crate::engine::{NewParty, OperatorError, StartError};
use crate::http::{identified, own_id};
use crate::model::{Id, Kind, Moment, Rng as _};
use crate::store::Store;
use crate::{Around, Parts, Running, bind, demo, new_master_key, operator, run};

/// What the demo is told.
pub struct DemoOptions {
    /// Loopback address of engine and application.
    pub listen: SocketAddr,
    /// Folder of database and master key.
    pub data: PathBuf,
    /// A second loopback address of the application: another origin.
    pub second: Option<SocketAddr>,
}

/// Why the demo does not start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// An address is open to other machines.
    #[error("the demo listens on loopback only, not on {0}")]
    NotLoopback(SocketAddr),
    /// The data folder.
    #[error("{0}: {1}")]
    Data(PathBuf, std::io::Error),
    /// The engine.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The relying party.
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

/// The file in the data folder.
const DATABASE: &str = "countersign.db";
/// The demo's relying party.
const NAME: &str = "Harbour Bank";

/// Starts engine and demo application.
pub async fn run_demo(options: DemoOptions) -> Result<Running, DemoError> {
    for address in std::iter::once(options.listen).chain(options.second) {
        if !address.ip().is_loopback() {
            return Err(DemoError::NotLoopback(address));
        }
    }
    let listener = bind("--listen", options.listen).await?;
    let second = match options.second {
        Some(address) => Some(bind("--second", address).await?),
        None => None,
    };
    let address = local("--listen", &listener)?;
    let public_url = reached_at(address.port());
    let origin = public_url.origin().ascii_serialization();
    let mut origins = vec![origin.clone()];
    if let Some(second) = &second {
        origins.push(reached_at(local("--second", second)?.port()).origin().ascii_serialization());
    }

    let config = Config {
        listen: address,
        public_url,
        storage: Storage::new(Database::Sqlite(options.data.join(DATABASE))),
        master_key: master_key(&options.data)?,
        sms: Sms { local: Some(LocalProvider::Inbox), ..Sms::default() },
        trusted_proxies: Vec::new(),
        factor_cool_off: 0,
        drain: crate::config::DRAIN,
        metrics_listen: None,
        webhook_private: true,
        development: true,
    };
    // First, so that a second demo is refused before it takes the first one's key away.
    let lock = Store::lock_sqlite(&options.data.join(DATABASE)).map_err(StartError::from)?;
    let new = NewParty {
        name: NAME.to_owned(),
        host: "localhost".to_owned(),
        return_urls: origins
            .iter()
            .flat_map(|o| demo::RETURN_PATHS.iter().map(move |path| format!("{o}{path}")))
            .collect(),
        origins: origins.clone(),
        test: true,
    };
    let key = operator(&config.storage, true).await?.renew_demo(new).await?;
    let application = |origin: &str| {
        demo::router(demo::Settings {
            engine: config.issuer(),
            engine_address: address,
            api_key: key.secret.clone(),
            origin: origin.to_owned(),
            now: || SystemClock.now().seconds(),
            random: || {
                let mut bytes = [0; 32];
                SystemRng.fill(&mut bytes);
                bytes
            },
        })
    };
    let here = application(&origin);
    let around: Around = Box::new(move |engine| named(here.fallback_service(engine), origin));
    let other = second.map(|listener| (listener, named(application(&origins[1]), origins[1].clone())));
    let parts = Parts { around: Some(around), listener: Some(listener), lock: Some(lock), ..Parts::new(&config) };
    let running = run(&config, parts).await?;
    if let Some((listener, router)) = other {
        tokio::spawn(crate::http::serve(listener, router, std::future::pending()));
    }
    Ok(running)
}

fn local(name: &'static str, listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|e| StartError::Listen(name, SocketAddr::from(([127, 0, 0, 1], 0)), e))
}

/// Where browsers reach a port of this machine. Its origin is what they send: without a port where that is the usual one.
fn reached_at(port: u16) -> url::Url {
    url::Url::parse(&format!("http://localhost:{port}")).expect("a constant form with a port number")
}

/// Reached by this origin alone; every answer has the id of its request.
fn named(router: Router, origin: String) -> Router {
    router.layer(middleware::from_fn(move |request, next| by_name(origin.clone(), request, next)))
}

/// Passkeys know `localhost` and no address: whoever comes by another name is sent there. Some name the usual port, too.
async fn by_name(origin: String, request: Request, next: Next) -> Response {
    let at = Moment::new(SystemClock.now(), &SystemRng);
    let id = own_id(request.headers()).unwrap_or_else(|| Id::new(Kind::Request, &at).to_string());
    let host = request.headers().get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let response = match origin.strip_prefix("http://") == Some(host.strip_suffix(":80").unwrap_or(host)) {
        true => next.run(request).await,
        false => {
            let rest = request.uri().path_and_query().map_or("/", |p| p.as_str());
            Redirect::temporary(&format!("{origin}{rest}")).into_response()
        }
    };
    identified(response, &id)
}

/// The master key in the data folder, made on first use; only its owner may read it.
fn master_key(folder: &Path) -> Result<Secret, DemoError> {
    let named = |path: &Path| {
        let path = path.to_owned();
        move |error| DemoError::Data(path, error)
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(named(folder))?;
    let path = folder.join("master.key");
    if !path.exists() {
        let mut file =
            std::fs::File::options().create_new(true).write(true).mode(0o600).open(&path).map_err(named(&path))?;
        writeln!(file, "{}", new_master_key().as_str()).map_err(named(&path))?;
    }
    let text = std::fs::read_to_string(&path).map_err(named(&path))?;
    Ok(Secret(Zeroizing::new(text.trim().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::reached_at;

    /// What a browser names as the origin of its page, and what relying parties are registered with.
    #[test]
    fn the_usual_port_is_no_part_of_the_origin() {
        assert_eq!(reached_at(80).origin().ascii_serialization(), "http://localhost");
        assert_eq!(reached_at(8080).origin().ascii_serialization(), "http://localhost:8080");
    }
}
