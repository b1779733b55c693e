//! Callers who need not wait for each other: what comes while the database is at work is handed to it in one go.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::{Error, Result};

/// What may wait before callers do.
const QUEUE: usize = 4096;
/// How many turns there are at once. The more that gather for one, the less each costs; so the next begins when the one before has
/// ended. One that takes long gives the queue, which it holds while it is at work, to the next; only behind four such others wait.
const TURNS: usize = 4;
const LONG: Duration = Duration::from_millis(10);

/// A question, and who waits for its outcome.
pub type Waiting<Q, A> = (Q, oneshot::Sender<Result<A>>);

/// A queue before the database.
pub struct Gather<Q, A>(mpsc::Sender<Waiting<Q, A>>);

impl<Q, A> Clone for Gather<Q, A> {
    fn clone(&self) -> Self {
        Gather(self.0.clone())
    }
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    /// Hands on up to so many at once to what tells each its own outcome. It ends with the last of those who may ask.
    pub fn start<F, R>(most: usize, answer: F) -> Gather<Q, A>
    where
        F: Fn(Vec<Waiting<Q, A>>) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + Send,
    {
        let (asks, waiting) = mpsc::channel::<Waiting<Q, A>>(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..TURNS {
            let (waiting, answer) = (Arc::clone(&waiting), answer.clone());
            tokio::spawn(async move {
                loop {
                    let mut mine = waiting.lock().await;
                    let mut batch = Vec::new();
                    if mine.recv_many(&mut batch, most).await == 0 {
                        break;
                    }
                    let mut answering = pin!(answer(batch));
                    let ended = timeout(LONG, &mut answering).await.is_ok();
                    drop(mine);
                    if !ended {
                        answering.await;
                    }
                }
            });
        }
        Gather(asks)
    }

    /// Whether anybody is there to hand on what is asked.
    pub fn takes(&self) -> bool {
        !self.0.is_closed()
    }

    /// Waits for the outcome.
    pub async fn ask(&self, question: Q) -> Result<A> {
        let gone = || Error::Unavailable("the question could not be asked".to_owned());
        let (tell, told) = oneshot::channel();
        self.0.send((question, tell)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

/// Tells an outcome; whoever no longer waits is not told.
pub fn tell<A>(waits: oneshot::Sender<Result<A>>, outcome: Result<A>) {
    let _ = waits.send(outcome);
}
