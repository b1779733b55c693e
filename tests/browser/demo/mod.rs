//! The demo application with its engine: a relying party on the engine's own origin and on another one.

mod bank;
mod forms;
mod guest;
mod story;
