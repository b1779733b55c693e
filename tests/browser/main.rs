//! The hosted pages, as a person meets them: with a plain client where no script is needed, and in a real browser. The
//! application stands on another port, so that what crosses origins is tested as such.

#[path = "../support/app.rs"]
mod app;
#[path = "../support/authenticator.rs"]
mod authenticator;
#[path = "../support/browser.rs"]
mod browser;
#[path = "../support/port.rs"]
mod port;
mod visitor;
mod world;

mod codes;
mod demo;
mod journeys;
mod links;
mod portal;
