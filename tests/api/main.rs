//! The engine as its callers see it: api.md, sentence by sentence, over HTTP. One module a resource; what every answer must be
//! is checked beneath, in `support::document`.

#![allow(clippy::expect_used, clippy::panic, reason = "in tests a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod bad_input;
mod challenges;
mod commands;
mod conventions;
mod data;
mod factors;
mod idempotency;
mod keys;
mod nodes;
mod observed;
mod portal;
mod processes;
mod races;
mod secrets;
mod sessions;
mod texts;
mod throttle;
mod users;
mod webauthn;
