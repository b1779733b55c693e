//! Webhooks on their way: which addresses may be told anything, and one attempt to tell one of them. Addresses are named by callers,
//! so none of them may lead to what only this machine can reach (OWASP ASVS 1.3.6; Standard Webhooks 1.0.0, "SSRF").

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER, USER_AGENT};
use url::{Host, Url};

use crate::measure::Stopwatch;
use crate::model::{Reply, Timestamp};

/// An attempt takes no longer, from the first look for an address to the head of the answer.
const LONGEST: Duration = Duration::from_secs(15);

/// Addresses that are not of the public Internet (IANA's registries of special-purpose addresses, and of multicast).
static PRIVATE: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let networks = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 \
        192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 \
        2001::/23 2001:db8::/32 2002::/16 3fff::/20";
    networks.split_whitespace().map(|text| text.parse().expect("a network")).collect()
});

/// Whether an address is of the public Internet. Of IPv6 that is no more than what is given out as global unicast (2000::/3), so
/// that nothing that wraps another address counts: mapped, translated, tunnelled.
fn is_public(address: IpAddr) -> bool {
    let is_given_out = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(six) => six.octets()[0] >> 5 == 1,
    };
    is_given_out && !PRIVATE.iter().any(|network| network.contains(&address))
}

/// Reads an address that a caller names for webhooks; why it may not be told anything otherwise. What its name leads to is looked at
/// with every connection.
pub fn read_target(text: &str, private: bool) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "Expected an address, as https://www.example.com/webhooks.")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("The address must not hold a user or a password.");
    }
    if url.fragment().is_some() {
        return Err("The address must not have a fragment.");
    }
    let is_local = url
        .host_str()
        .map(|host| host.trim_end_matches('.'))
        .is_none_or(|host| host == "localhost" || host.ends_with(".localhost"));
    if !private && is_local {
        return Err("The address must be of the public Internet.");
    }
    admit(&url, private)?;
    Ok(url)
}

/// The same without a look at its name.
fn admit(url: &Url, private: bool) -> Result<(), &'static str> {
    match (url.scheme(), private) {
        ("https", _) | ("http", true) => {}
        _ => return Err("The address must begin with https://."),
    }
    let literal = match url.host() {
        Some(Host::Ipv4(four)) => Some(IpAddr::V4(four)),
        Some(Host::Ipv6(six)) => Some(IpAddr::V6(six)),
        Some(Host::Domain(_)) => None,
        None => return Err("The address must name a host."),
    };
    match literal.is_none_or(is_public) || private {
        true => Ok(()),
        false => Err("The address must be of the public Internet."),
    }
}

/// How names are looked up: the system's way, or another in tests.
type Lookup = fn(String) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;

fn by_system(name: String) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
}

/// A name led to no address that may be told anything.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to no public address")]
struct NotPublic;

/// Looks names up, and gives away no address but public ones: what is connected to is what was looked at.
struct Guard {
    lookup: Lookup,
    private: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, private) = (self.lookup, self.private);
        Box::pin(async move {
            let mut found = lookup(name.as_str().to_owned()).await?;
            found.retain(|address| private || is_public(address.ip()));
            match found.is_empty() {
                true => Err(NotPublic.into()),
                false => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

/// One message, signed.
pub struct Notice<'a> {
    /// Where to.
    pub url: &'a str,
    /// `webhook-id`: the same in every attempt.
    pub id: &'a str,
    /// `webhook-timestamp`: seconds since 1970, of this attempt.
    pub timestamp: i64,
    /// `webhook-signature`.
    pub signature: String,
    /// JSON.
    pub body: Vec<u8>,
}

/// Carries webhooks. Its clients are made when they are first needed: one for https needs the machine's CA bundle.
pub struct Courier {
    private: bool,
    lookup: Lookup,
    https: OnceLock<Option<reqwest::Client>>,
    http: OnceLock<Option<reqwest::Client>>,
}

impl Courier {
    /// `private` lets it go to http and to addresses that are not public.
    pub fn new(private: bool) -> Courier {
        Courier { private, lookup: by_system, https: OnceLock::new(), http: OnceLock::new() }
    }

    /// Whether this address may be told anything; why not otherwise.
    pub fn check(&self, url: &str) -> Result<(), &'static str> {
        read_target(url, self.private).map(drop)
    }

    /// One attempt, and how long it took in seconds.
    pub async fn send(&self, notice: Notice<'_>, now: Timestamp) -> (Reply, f64) {
        let watch = Stopwatch::start();
        let reply = tokio::time::timeout(LONGEST, self.attempt(notice, now)).await.unwrap_or(Reply::None("timeout"));
        (reply, watch.seconds())
    }

    async fn attempt(&self, notice: Notice<'_>, now: Timestamp) -> Reply {
        // The setting may be another one than when the address was named.
        let Some(url) = Url::parse(notice.url).ok().filter(|url| admit(url, self.private).is_ok()) else {
            return Reply::None("address_not_allowed");
        };
        let Some(client) = self.client(&url) else { return Reply::None("no_client") };
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("Countersign/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", notice.id)
            .header("webhook-timestamp", notice.timestamp)
            .header("webhook-signature", notice.signature)
            .body(notice.body);
        match request.send().await {
            Ok(answer) => Reply::Status(answer.status().as_u16(), retry_after(answer.headers(), now)),
            Err(error) => Reply::None(word(&error)),
        }
    }

    /// Follows no redirect, asks no proxy, and connects to public addresses alone.
    fn client(&self, url: &Url) -> Option<&reqwest::Client> {
        let is_clear = url.scheme() == "http";
        let made = if is_clear { &self.http } else { &self.https };
        let client = made.get_or_init(|| {
            let builder = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .dns_resolver(Arc::new(Guard { lookup: self.lookup, private: self.private }))
                .connect_timeout(Duration::from_secs(5))
                .pool_max_idle_per_host(1);
            let builder = if is_clear { builder.tls_certs_only([]) } else { builder };
            builder.build().inspect_err(|error| tracing::error!(%error, "webhooks cannot be sent")).ok()
        });
        client.as_ref()
    }
}

/// Why there was no answer, in a word.
fn word(error: &reqwest::Error) -> &'static str {
    let mut cause: Option<&dyn Error> = Some(error);
    while cause.is_some_and(|cause| !cause.is::<NotPublic>()) {
        cause = cause.and_then(Error::source);
    }
    if cause.is_some() {
        "address_not_allowed"
    } else if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "unreachable"
    } else {
        "no_answer"
    }
}

/// Seconds from now, whether they are written as such or as a time (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<i64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(text.parse().unwrap_or(i64::MAX)).filter(|_| !text.is_empty());
    }
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc2822).ok()?;
    Some(time.unix_timestamp().saturating_sub(now.seconds()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;

    /// H-10, 3.32: in every form that a URL parser reads.
    #[test]
    fn no_address_that_leads_inside_is_a_target() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:8.8.8.8]",
            "[::127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "[fe80::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
            "[2001:db8::1]",
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "１２７.0.0.1",
        ] {
            assert!(read_target(&format!("https://{host}/hook"), false).is_err(), "{host}");
            assert!(read_target(&format!("http://{host}:8080/hook"), true).is_ok(), "{host}");
        }
        for other in [
            "http://example.com/",
            "ftp://example.com/",
            "https://u:p@example.com/",
            "https://",
            "x",
            "https://a.example/#b",
        ] {
            assert!(read_target(other, false).is_err(), "{other}");
        }
        for good in [
            "https://example.com/hook?x=1",
            "https://8.8.8.8:8443/",
            "https://[2606:4700::1111]/",
            "https://172.32.0.1/",
        ] {
            assert!(read_target(good, false).is_ok(), "{good}");
        }
    }

    fn notice(url: &str) -> Notice<'_> {
        Notice { url, id: "evt_1", timestamp: 1, signature: "v1,x".to_owned(), body: b"{}".to_vec() }
    }

    /// H-10, 3.32: a name that was public when it was looked at leads inside when it is connected to. Nothing is connected to.
    #[tokio::test]
    async fn a_name_that_leads_inside_later_is_not_connected_to() {
        static PORT: AtomicUsize = AtomicUsize::new(0);
        static LOOKS: AtomicUsize = AtomicUsize::new(0);
        fn inside(_: String) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> {
            LOOKS.fetch_add(1, Ordering::Relaxed);
            let port = u16::try_from(PORT.load(Ordering::Relaxed)).unwrap_or_default();
            Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]) })
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        PORT.store(usize::from(listener.local_addr().expect("an address").port()), Ordering::Relaxed);
        let met = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&met);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let courier = |private| Courier { lookup: inside, ..Courier::new(private) };
        let url = format!("https://hooks.example:{}/", PORT.load(Ordering::Relaxed));
        assert_eq!(courier(false).check(&url), Ok(()));
        for _ in 0..2 {
            let (reply, _) = courier(false).send(notice(&url), Timestamp(0)).await;
            assert_eq!(reply, Reply::None("address_not_allowed"));
        }
        assert_eq!((LOOKS.load(Ordering::Relaxed), met.load(Ordering::Relaxed)), (2, 0));
        // The same name, where private addresses are allowed: it is connected to, and does not speak TLS.
        let (reply, _) = courier(true).send(notice(&url), Timestamp(0)).await;
        assert_ne!(reply, Reply::None("address_not_allowed"));
        assert_eq!(met.load(Ordering::Relaxed), 1);
    }

    /// H-10: an address that was named while private ones were allowed is not told anything any more.
    #[tokio::test]
    async fn a_literal_address_is_looked_at_with_every_attempt() {
        for url in ["http://127.0.0.1:1/", "https://127.0.0.1:1/", "https://[::1]:1/", "http://example.com/", "none"] {
            let (reply, _) = Courier::new(false).send(notice(url), Timestamp(0)).await;
            assert_eq!(reply, Reply::None("address_not_allowed"), "{url}");
        }
    }

    /// H-08.
    #[test]
    fn retry_after_is_seconds_or_a_time() {
        let now = Timestamp::from_seconds(1_767_323_045);
        let read = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("a value"))]), now)
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("99999999999999999999"), Some(i64::MAX));
        assert_eq!(read("Fri, 02 Jan 2026 03:05:05 GMT"), Some(60));
        assert_eq!((read("soon"), read(""), read("-5")), (None, None, None));
    }
}
