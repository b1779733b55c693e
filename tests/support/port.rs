//! Ports for whoever listens later than the test chooses them.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that was free a moment ago. It lies below those that the system gives out, lest somebody else be given it before it is
/// listened on, or while the one who listens on it starts again.
pub fn free_port() -> u16 {
    let first = std::process::id() % 97 * 100;
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + ((first + u32::from(next)) % 9_900) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
