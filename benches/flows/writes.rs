//! What a right code writes, by the store alone in this process: nothing is received, asked, judged or signed, and events get no
//! links. The least that a flow can cost with these rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use countersign::clock::{Clock, SystemClock, SystemRng};
use countersign::engine::open_store;
use countersign::model::{
    Acr, Actor, Challenge, ChallengeStatus, Channel, Event, Evidence, Grant, Id, Kind, MethodKind, Moment, Proof,
    Session, Terms,
};
use countersign::store::{FactorChange, NewSession, Settlement, ThrottleLane};

use crate::engine::Place;
use crate::population::{self, App};
use crate::{Options, load, watch};

/// Which rows of a right code.
#[derive(Clone, Copy)]
pub enum Rows {
    /// All four.
    All,
    /// Throttle, factor and session: as if the session's row were the event too.
    Three,
}

/// Users; more change nothing here.
const MOST: usize = 40_000;

/// Settlements as fast as so many tasks ask for them.
pub async fn alone(options: &Options, postgres: Option<&str>, rows: Rows) -> load::Row {
    let place = Place::fresh(postgres);
    countersign::migrate(&place.storage).await.expect("a schema");
    let (_, rp) = place.party().await;
    let seeding = open_store(&place.for_seeding(), false).await.expect("the database opens");
    // As long as a sealed secret.
    let sealed = |_: &Moment<'_>, _: countersign::vault::Row<'_>, secret: &[u8]| [secret, &[0; 45]].concat();
    let users = population::enrolled(&seeding, &rp.id, options.users.min(MOST), sealed).await;
    seeding.close().await;
    place.tidy();

    let store = open_store(&place.storage, false).await.expect("the database opens");
    let turns: Vec<AtomicI64> = users.iter().map(|_| AtomicI64::new(0)).collect();
    let shared = Arc::new((store.clone(), rp.id, users, turns));
    let process = std::process::id();
    let span = Duration::from_secs(options.seconds);
    let memory = || watch::memory(process);
    let nothing = || async {};
    let row = load::measure(nothing, options.connections, None, span, &|| place.cpu(process), &memory, move |(), n| {
        let shared = Arc::clone(&shared);
        async move {
            let (store, rp, users, turns) = &*shared;
            let n = n % users.len();
            let turn = turns[n].fetch_add(1, Ordering::Relaxed);
            let whole = of_right_code(rp, &users[n], turn);
            let settlement = match rows {
                Rows::All => whole,
                Rows::Three => Settlement { event: None, ..whole },
            };
            ((), Some(store.settle(settlement).await.is_ok()))
        }
    })
    .await;
    store.close().await;
    row
}

/// What the engine writes of a user's right code, the first being turn 0, in a call that makes and answers a challenge.
fn of_right_code(rp: &Id, app: &App, turn: i64) -> Settlement {
    let at = Moment::new(SystemClock.now(), &SystemRng);
    let method = MethodKind::Totp;
    let proof = Proof {
        method,
        factor_id: Some(app.factor.clone()),
        evidence: Evidence::of_code(Channel::AuthenticatorApp),
        at: at.now,
        by_client_token: false,
    };
    let terms = Terms { action: "login".to_owned(), ..Terms::default() };
    let challenge = Challenge {
        status: ChallengeStatus::Approved,
        proof: Some(proof),
        ..Challenge::new(&at, rp, &app.user, terms, 5, at.now.plus_seconds(600))
    };
    let grant = Grant {
        action: "login".to_owned(),
        acr: Acr::Aal2,
        amr: vec!["otp".to_owned(), "mfa".to_owned()],
        method,
        auth_time: at.now,
        single_use: false,
        audience: Vec::new(),
        binding: None,
        context: None,
        challenge_id: challenge.id.clone(),
    };
    let session = Session {
        id: challenge.id.sibling(Kind::Session),
        rp_id: rp.clone(),
        user_id: app.user.clone(),
        grant,
        factor_id: Some(app.factor.clone()),
        created_at: at.now,
        expires_at: at.now.plus_seconds(600),
        ended_at: None,
        added_at: None,
        removed_at: None,
    };
    let event = Event {
        user_id: Some(app.user.clone()),
        method: Some(method),
        factor_id: Some(app.factor.clone()),
        challenge_id: Some(challenge.id.clone()),
        session_id: Some(session.id.clone()),
        ..Event::new(&at, rp, "verification.succeeded", Actor::Server)
    };
    let lane = ThrottleLane {
        version: turn,
        state: format!(r#"{{"since":0,"succeeded_at":{}}}"#, at.now.0),
        ..ThrottleLane::default()
    };
    Settlement {
        throttle: Some(lane),
        factor: Some(FactorChange::Step(app.factor.clone(), turn + 1)),
        session: Some(Arc::new(NewSession {
            session,
            token_hash: at.random::<32>().to_vec(),
            challenge: Some(Arc::new(challenge)),
        })),
        ..Settlement::telling(event)
    }
}
