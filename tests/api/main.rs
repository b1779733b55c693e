//! The engine as its callers see it: api.md, sentence by sentence, over HTTP. One module a resource; what every answer must be
//! is checked beneath, in `support::document`.

#![allow(clippy::expect_used, clippy::panic, reason = "in tests a panic is the report")]
#![allow(clippy::print_stdout, reason = "long runs say what they counted, and a test says what it could not try")]

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod audit;
mod bad_input;
mod budgets;
mod challenges;
mod commands;
mod conventions;
mod data;
mod factors;
mod faults;
mod flood;
mod gateways;
mod housekeeping;
mod idempotency;
mod keys;
mod kill;
mod nodes;
mod observed;
mod portal;
mod processes;
mod races;
mod rolling;
mod round_trips;
mod secrets;
mod sessions;
mod texts;
mod throttle;
mod users;
mod webauthn;
mod webhooks;
