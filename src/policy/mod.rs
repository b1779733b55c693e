//! Rules as pure tables and state machines: what a proof is worth, when guessing pauses and what it comes to, what satisfies a demand,
//! when a text may go out, how audit events are chained, when a webhook is tried again.

pub mod assurance;
pub mod chain;
pub mod odds;
pub mod redelivery;
pub mod requirement;
pub mod sending;
pub mod throttle;
