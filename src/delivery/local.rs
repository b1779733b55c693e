//! Providers that stay on this machine, for demo and development: the settings refuse them anywhere else.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::{Provider, Refused};
use crate::model::Message;

/// Writes texts to stderr.
pub struct Console;

#[async_trait::async_trait]
impl Provider for Console {
    fn name(&self) -> &'static str {
        "console"
    }

    #[expect(clippy::print_stderr, reason = "this is what the provider is for")]
    async fn send(&self, message: &Message) -> Result<(), Refused> {
        eprintln!("text to {}:\n{}", message.to.as_str(), message.text.as_str());
        Ok(())
    }
}

/// Texts kept; older ones go first.
const KEPT: usize = 100;

/// A text that was "sent".
#[derive(Clone, Serialize)]
pub struct Kept {
    /// `msg_…`.
    pub id: String,
    /// The number.
    pub to: String,
    /// What it says.
    pub text: String,
    /// On whose behalf.
    pub rp: String,
}

/// Keeps the latest texts in memory.
#[derive(Default)]
pub struct Inbox {
    texts: Mutex<VecDeque<Kept>>,
}

impl Inbox {
    /// The latest texts, newest first.
    pub fn texts(&self) -> Vec<Kept> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

#[async_trait::async_trait]
impl Provider for Arc<Inbox> {
    fn name(&self) -> &'static str {
        "inbox"
    }

    async fn send(&self, message: &Message) -> Result<(), Refused> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.len() == KEPT {
            texts.pop_front();
        }
        texts.push_back(Kept {
            id: message.id.to_string(),
            to: message.to.as_str().to_owned(),
            text: message.text.as_str().to_owned(),
            rp: message.rp_id.to_string(),
        });
        Ok(())
    }
}
