//! What goes on beside requests, in every engine that serves, until it is told to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::Engine;
use crate::{ended, http, measure};

/// How often what has run out is removed.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How often audit events are sealed, keys read again, and webhooks sent.
const TICK: Duration = Duration::from_secs(1);
/// So many audit events in one turn say that there is load.
const MANY: usize = 1000;

/// Begins all of it, each by itself: one that takes long holds up none of the others.
pub fn begin(engine: &Arc<Engine>, stopped: &watch::Receiver<bool>) {
    tokio::spawn(keep_count(Arc::clone(engine), stopped.clone()));
    tokio::spawn(every(HOUSEKEEPING, Arc::clone(engine), stopped.clone(), keep_house));
    tokio::spawn(every(TICK, Arc::clone(engine), stopped.clone(), keep_sealing));
    tokio::spawn(every(TICK, Arc::clone(engine), stopped.clone(), keep_learning));
    tokio::spawn(every(TICK, Arc::clone(engine), stopped.clone(), keep_telling));
}

/// Keeps the metrics small in memory, and those that need the database up to date.
async fn keep_count(engine: Arc<Engine>, stopped: watch::Receiver<bool>) {
    let mut fold = tokio::time::interval(Duration::from_secs(1));
    let mut count = tokio::time::interval(HOUSEKEEPING);
    let mut stopped = std::pin::pin!(ended(stopped));
    loop {
        tokio::select! {
            _ = fold.tick() => measure::fold(),
            _ = count.tick() => {
                if let Err(error) = engine.count_paused().await {
                    tracing::warn!(%error, "paused users could not be counted");
                }
            }
            () = &mut stopped => return,
        }
    }
}

/// Does the same again and again, after a wait, until it is to end.
async fn every<W>(wait: Duration, engine: Arc<Engine>, stopped: watch::Receiver<bool>, work: impl Fn(Arc<Engine>) -> W)
where
    W: Future<Output = ()>,
{
    let mut stopped = std::pin::pin!(ended(stopped));
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => work(Arc::clone(&engine)).await,
            () = &mut stopped => return,
        }
    }
}

/// Step after step until nothing is left to remove: a minute may bring more than one step takes.
async fn keep_house(engine: Arc<Engine>) {
    loop {
        match engine.purge().await {
            Ok(0) => break,
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => {
                tracing::warn!(%error, "housekeeping failed");
                break;
            }
        }
    }
}

/// Seals audit events, without a rest where there were many: while they are sealed, others come.
async fn keep_sealing(engine: Arc<Engine>) {
    loop {
        match engine.seal_events().await {
            Ok(sealed) if sealed >= MANY => tokio::task::yield_now().await,
            Ok(_) => break,
            Err(error) => {
                tracing::warn!(%error, "audit events were not sealed");
                break;
            }
        }
    }
}

/// Learns of new keys.
async fn keep_learning(engine: Arc<Engine>) {
    if let Err(error) = engine.refresh_keys().await {
        tracing::warn!(?error, "the keys were not read");
    }
}

/// Tells webhook endpoints of events, unless their secrets may not open here any more: another engine goes on.
async fn keep_telling(engine: Arc<Engine>) {
    if engine.is_left_behind() {
        return;
    }
    if let Err(error) = engine.deliver_webhooks(http::webhook_message).await {
        tracing::warn!(%error, "webhooks were not sent");
    }
}
