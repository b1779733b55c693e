//! Questions to SQLite, answered where they are asked: whoever finds a connection idle reads for all who wait. To hand a question to
//! another thread, and its rows back, costs more than to look some rows up by key.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::asking::{Ask, MOST};
use super::dossier::PartRow;
use super::gather::{Waiting, tell};
use super::{Error, Result, piecewise, sqlite};

/// How many read at once. The more that gather for one, the less each costs.
const READERS: usize = 4;
/// So many wait before another reads beside those who do already: the disk may be slow.
const CROWD: usize = 8;
/// How long somebody else may hold the file: who reads holds up a thread that serves.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long until readers are looked for again when all are to end.
const AGAIN: Duration = Duration::from_millis(5);

/// Those who ask, and the connections that answer.
#[derive(Clone)]
pub(super) struct Answerers(Arc<Shared>);

struct Shared {
    path: PathBuf,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting<Ask, Vec<PartRow>>>,
    idle: Vec<Connection>,
    /// How many read.
    reading: usize,
    closed: bool,
}

/// The right to read for those who wait, with a connection if there was one; given back when nobody waits any more.
struct Reader {
    shared: Arc<Shared>,
    conn: Option<Connection>,
    ended: bool,
}

impl Answerers {
    /// Connections to this file are made when they are needed.
    pub(super) fn new(path: &Path) -> Answerers {
        Answerers(Arc::new(Shared { path: path.to_owned(), queue: Mutex::default() }))
    }

    /// Waits for the rows.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Vec<PartRow>> {
        let gone = || Error::Unavailable("the question could not be asked".to_owned());
        let (tell, told) = oneshot::channel();
        if let Some(mut reader) = self.0.enter((ask, tell))?
            && !reader.read()
        {
            // The others need not be answered by this call.
            tokio::spawn(async move {
                while !reader.read() {
                    tokio::task::yield_now().await;
                }
            });
            // It may have to run on this thread.
            tokio::task::yield_now().await;
        }
        told.await.map_err(|_| gone())?
    }

    /// How many connections read, and how many idle.
    pub(super) fn size(&self) -> (usize, usize) {
        let queue = self.0.queue();
        (queue.reading, queue.idle.len())
    }

    /// Ends all connections, after what is under way.
    pub(super) async fn close(&self) {
        while self.0.end() > 0 {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more questions; tells how many still read.
    fn end(&self) -> usize {
        let mut queue = self.queue();
        queue.closed = true;
        queue.idle.clear();
        queue.reading
    }

    /// Puts a question with those that wait. Whoever gets a reader has to read.
    fn enter(self: &Arc<Shared>, waiting: Waiting<Ask, Vec<PartRow>>) -> Result<Option<Reader>> {
        let mut queue = self.queue();
        if queue.closed {
            return Err(Error::Unavailable("the database is closed".to_owned()));
        }
        queue.waiting.push(waiting);
        let reads = queue.reading == 0 || queue.reading < READERS && queue.waiting.len() >= CROWD;
        Ok(reads.then(|| {
            queue.reading += 1;
            Reader { shared: Arc::clone(self), conn: queue.idle.pop(), ended: false }
        }))
    }
}

impl Reader {
    /// Answers those who wait, as many as are asked for at once; whether nobody is left.
    fn read(&mut self) -> bool {
        let waiting: Vec<_> = {
            let mut queue = self.shared.queue();
            let some = queue.waiting.len().min(MOST);
            queue.waiting.drain(..some).collect()
        };
        if !waiting.is_empty() {
            self.answer(waiting);
        }
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue();
        // Nobody may come between the look and the end: he would wait for a reader that is none any more.
        if queue.waiting.is_empty() {
            self.end(&mut queue);
        }
        self.ended
    }

    fn answer(&mut self, waiting: Vec<Waiting<Ask, Vec<PartRow>>>) {
        let conn = match self.conn.take() {
            Some(conn) => Ok(conn),
            None => sqlite::here(&self.shared.path, PATIENCE),
        };
        match conn {
            Ok(conn) => {
                piecewise::on_sqlite(&conn, waiting);
                // One that still saw what was would see it for ever.
                self.conn = Some(conn).filter(Connection::is_autocommit);
            }
            Err(error) => waiting.into_iter().for_each(|(_, waits)| tell(waits, Err(error.again()))),
        }
    }

    fn end(&mut self, queue: &mut Queue) {
        self.ended = true;
        let conn = self.conn.take();
        match queue.closed {
            // Before anybody hears that all have ended.
            true => drop(conn),
            false => queue.idle.extend(conn),
        }
        queue.reading -= 1;
    }
}

/// However it ends: whoever waits for nobody any more is told so.
impl Drop for Reader {
    fn drop(&mut self) {
        if !self.ended {
            let shared = Arc::clone(&self.shared);
            let mut queue = shared.queue();
            self.end(&mut queue);
            if queue.reading == 0 {
                queue.waiting.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Id, Kind, Moment, Timestamp};
    use crate::store::Store;

    /// A hundred ask at once, many more than are asked together, and each gets its own rows; who gives up while another reads for
    /// it holds up nobody. Once it is closed nobody is answered.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn everybody_is_answered_once_until_it_is_closed() {
        let at = Moment::new(Timestamp(1), &crate::clock::SystemRng);
        let folder = std::env::temp_dir().join(format!("countersign-answerers-{}", Id::new(Kind::Event, &at)));
        let path = folder.join("a.db");
        let store = Store::sqlite(&path, 1).await.expect("a database");
        let conn = sqlite::here(&path, PATIENCE).expect("a connection");
        for n in 0..100 {
            let row =
                "insert into throttle_lanes (rp_id, user_id, lane, version, state) values ('rp_1', ?1, '', ?2, '{}')";
            conn.execute(row, rusqlite::params![format!("u{n}"), n]).expect("a row");
        }
        let answerers = Answerers::new(&path);
        let rp = Id::stored("rp_1".to_owned());
        let asking: Vec<_> = (0..200)
            .map(|n| {
                let (answerers, ask) = (answerers.clone(), Ask::of_party(&rp, at.now).user(&format!("u{}", n % 100)));
                tokio::spawn(async move { answerers.ask(ask).await.expect("an answer").len() })
            })
            .collect();
        for (n, asked) in asking.into_iter().enumerate() {
            match n % 7 {
                0 => asked.abort(),
                _ => assert_eq!(asked.await.expect("it ends"), 1, "{n}"),
            }
        }
        answerers.close().await;
        assert_eq!(answerers.size(), (0, 0));
        assert!(answerers.ask(Ask::of_party(&rp, at.now).user("u1")).await.is_err());
        store.close().await;
        std::fs::remove_dir_all(&folder).expect("it is there");
    }
}
