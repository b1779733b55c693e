//! Everything that is used up is used up once, however many copies of the request arrive together: of fifty exactly one
//! succeeds, never none, and no copy fails for another reason than its own lateness (standards X-08, 3.3, 3.5).

use std::cell::Cell;

use crate::support::app::{base32, totp};
use crate::support::child::Place;
use crate::support::gateway::Mood;
use crate::support::verbs::text;
use crate::support::{Answer, Authenticator, User, Value, World, at_once, json, one_wins};

const COPIES: usize = 50;

tokio::task_local! {
    /// Races that a test has run.
    static RACES: Cell<usize>;
}

/// A race with a new person each round, a day apart: as many rounds as `COUNTERSIGN_RACE_ROUNDS` says (`tests/races.sh`), once if
/// it says nothing.
async fn in_rounds<F: Future<Output = ()>>(test: impl Fn(User) -> F) {
    let rounds = std::env::var("COUNTERSIGN_RACE_ROUNDS").map_or(1, |n| n.parse().expect("a number of rounds"));
    let bank = World::start().await.bank().await;
    RACES
        .scope(Cell::new(0), async {
            for round in 0..rounds {
                test(bank.user(&format!("ann-{round}"))).await;
                bank.world.wait(86_400);
            }
            println!("\nraces of {COPIES}: {} in {rounds} rounds", RACES.with(Cell::get));
        })
        .await;
}

/// The same call from fifty copies at once.
async fn race<T: Send + 'static, F: Future<Output = T> + Send + 'static>(call: impl Fn(usize) -> F) -> Vec<T> {
    RACES.with(|races| races.set(races.get() + 1));
    at_once(COPIES, call).await
}

/// How many sessions a user has.
async fn sessions(user: &User) -> usize {
    let list = user.bank.get(&user.path("/sessions?limit=100")).await.is(200);
    list["data"].as_array().expect("a list").len()
}

/// WR-20: a person's first factor needs no proof, and of several that are activated at once one alone is the first.
#[tokio::test]
async fn of_first_factors_at_once_one_needs_no_proof() {
    in_rounds(|ann| async move {
        let apps = [ann.begin_totp().await, ann.begin_totp().await, ann.begin_totp().await, ann.begin_totp().await];
        let browsers = [ann.browser(None).await, ann.browser(None).await];
        let answers = race(|n| {
            let (browser, app, ann) = (browsers[n % 2].clone(), apps[n % 4].clone(), ann.clone());
            async move {
                browser.post(&ann.path(&format!("/factors/{}/activate", app.id)), json!({"code": app.code()})).await
            }
        })
        .await;
        one_wins(&answers, &["step_up_required", "factor_not_pending", "code_reused"]);
        assert_eq!(ann.factors().await.iter().filter(|f| f["status"] == "active").count(), 1);
    })
    .await;
}

/// WR-20: of stronger factors that are added at once by a weaker proof one is added.
#[tokio::test]
async fn of_stronger_factors_at_once_one_rests_on_the_weaker_proof() {
    in_rounds(|ann| async move {
        let app = ann.enrol_totp().await;
        let session = ann.session(&app, json!({})).await;
        let browser = ann.browser(Some(&session["token"])).await;
        let mut made = Vec::new();
        for _ in 0..4 {
            let (id, options) = ann.begin_passkey().await;
            made.push((id, ann.device().create(&options).expect("the browser has no objection")));
        }
        let answers = race(|n| {
            let (browser, (id, credential), ann) = (browser.clone(), made[n % 4].clone(), ann.clone());
            async move {
                browser.post(&ann.path(&format!("/factors/{id}/activate")), json!({"credential": credential})).await
            }
        })
        .await;
        // A copy of the one that won may find its ceremony finished.
        one_wins(&answers, &["step_up_required", "factor_not_pending", "credential_invalid"]);
    })
    .await;
}

/// WR-20: nor are recovery codes made by whoever proved nothing while the first factor becomes active.
#[tokio::test]
async fn no_recovery_codes_slip_in_beside_the_first_factor() {
    in_rounds(|ann| async move {
        for n in 0..6 {
            let ann = ann.bank.user(&format!("{}-{n}", ann.id));
            let (app, browser) = (ann.begin_totp().await, ann.browser(None).await);
            let answers = at_once(12, |n| {
                let (browser, app, ann) = (browser.clone(), app.clone(), ann.clone());
                async move {
                    match n {
                        6 => ann.activate(&app.id, json!({"code": app.code()})).await,
                        _ => browser.post(&ann.path("/recovery-codes"), json!({})).await,
                    }
                }
            })
            .await;
            one_wins(&answers, &["step_up_required", "request_invalid", "rate_limited"]);
        }
    })
    .await;
}

/// WR-20: what a mere visit may do is asked behind what moves with every factor: one that becomes active in between is seen. Only
/// PostgreSQL lets a test stand in between.
#[tokio::test]
async fn a_first_factor_that_comes_between_is_seen() {
    let bank = World::start().await.bank().await;
    if bank.world.scratch.is_sqlite() {
        return;
    }
    for user in ["ann", "bob"] {
        let owner = bank.user(user);
        let (own, browser) = (owner.begin_totp().await, owner.browser(None).await);
        let begun = browser.post(&owner.path("/factors"), json!({"type": "totp"})).await.is(201);
        let secret = base32(begun["totp"]["secret"].as_str().expect("a secret"));
        let (path, body) = match user {
            "ann" => (owner.path("/recovery-codes"), json!({})),
            _ => {
                let path = owner.path(&format!("/factors/{}/activate", text(&begun["id"])));
                (path, json!({"code": totp(&secret, bank.world.now() / 30)}))
            }
        };
        let first = format!(
            "lock table throttle_lanes in access exclusive mode;
             update factors set activated_at = created_at where id = '{}';
             insert into throttle_lanes (rp_id, user_id, lane, version, state)
             select rp_id, user_id, 'enrolment', 1, '{{}}' from factors where id = '{0}'",
            own.id
        );
        let mut held = bank.world.scratch.hold(&first).await;
        let asked = tokio::spawn(async move { browser.post(&path, body).await });
        held.is_waited_for().await;
        held.let_go().await;
        asked.await.expect("no panic").refused(403, "step_up_required");
    }
}

/// T-08.
#[tokio::test]
async fn one_code_of_an_app_on_one_challenge() {
    in_rounds(|ann| async move {
        let app = ann.enrol_totp().await;
        let challenge = ann.challenge(json!({})).await;
        let answers = race(|_| {
            let (challenge, answer) = (challenge.clone(), app.now());
            async move { challenge.verify(answer).await }
        })
        .await;
        one_wins(&answers, &["challenge_not_pending", "code_reused"]);
        assert_eq!(sessions(&ann).await, 1);
    })
    .await;
}

/// T-08: whatever the challenge and the path.
#[tokio::test]
async fn one_code_of_an_app_over_ten_challenges_and_creations() {
    in_rounds(|ann| async move {
        let app = ann.enrol_totp().await;
        let mut challenges = Vec::new();
        for _ in 0..10 {
            challenges.push(ann.challenge(json!({})).await);
        }
        let answers = race(|n| {
            let (ann, challenge, answer) = (ann.clone(), challenges[n % 10].clone(), app.now());
            async move {
                match n % 5 {
                    0 => ann.ask(json!({"answer": answer})).await,
                    1 => challenge.browser().post(&challenge.path("/verify"), answer).await,
                    _ => challenge.verify(answer).await,
                }
            }
        })
        .await;
        one_wins(&answers, &["challenge_not_pending", "code_reused"]);
        assert!(sessions(&ann).await <= 1);
        // None of them was a guess.
        let challenge = ann.challenge(json!({})).await;
        for _ in 0..5 {
            challenge.verify(app.miss()).await.refused(422, "code_incorrect");
        }
        ann.session(&app, json!({})).await;
    })
    .await;
}

///
#[tokio::test]
async fn one_recovery_code_over_ten_challenges() {
    in_rounds(|ann| async move {
        ann.enrol_totp().await;
        let code = ann.recovery_codes().await.remove(0);
        let mut challenges = Vec::new();
        for _ in 0..10 {
            challenges.push(ann.challenge(json!({})).await);
        }
        let answers =
            race(|n| {
                let (ann, challenge, code) = (ann.clone(), challenges[n % 10].clone(), code.clone());
                let answer = json!({"type": "recovery_code", "code": code});
                async move {
                    if n % 5 == 0 { ann.ask(json!({"answer": answer})).await } else { challenge.verify(answer).await }
                }
            })
            .await;
        one_wins(&answers, &["challenge_not_pending", "code_incorrect", "code_reused", "rate_limited"]);
        assert_eq!(ann.shown().await["recovery_codes"]["remaining"], 9);
        assert_eq!(sessions(&ann).await, 1);
    })
    .await;
}

/// P-03.
#[tokio::test]
async fn one_code_that_was_sent() {
    in_rounds(|ann| async move {
        let phone = ann.enrol_phone("+14155550123").await;
        let challenge = ann.challenge(json!({})).await;
        ann.bank.world.wait(60);
        challenge.text().await.is(200);
        let answers = race(|_| {
            let (challenge, answer) = (challenge.clone(), phone.answer());
            async move { challenge.verify(answer).await }
        })
        .await;
        one_wins(&answers, &["challenge_not_pending", "code_reused", "code_expired"]);
        assert_eq!(sessions(&ann).await, 1);
    })
    .await;
}

/// WA-11.
#[tokio::test]
async fn one_assertion() {
    in_rounds(|ann| async move {
        for counting in [true, false] {
            let mut passkey = ann.enrol_passkey_on(Authenticator { counting, ..ann.device() }).await;
            let challenge = ann.challenge(json!({})).await;
            let before = sessions(&ann).await;
            let answer = passkey.answer(&challenge).await;
            let answers = race(|_| {
                let (challenge, answer) = (challenge.clone(), answer.clone());
                async move { challenge.verify(answer).await }
            })
            .await;
            one_wins(&answers, &["challenge_not_pending", "code_reused", "credential_invalid"]);
            assert_eq!(sessions(&ann).await, before + 1);
        }
    })
    .await;
}

/// WR-14.
#[tokio::test]
async fn one_registration_and_one_credential_over_many_users() {
    in_rounds(|ann| async move {
        let (id, options) = ann.begin_passkey().await;
        let credential = ann.device().create(&options).expect("no objection");
        let answers = race(|_| {
            let (ann, id, proof) = (ann.clone(), id.clone(), json!({"credential": credential}));
            async move { ann.activate(&id, proof).await }
        })
        .await;
        one_wins(&answers, &["factor_not_pending", "credential_invalid", "factor_duplicate"]);

        // The same credential id for ten users at once.
        let mut taken = [7; 32];
        taken[..ann.id.len()].copy_from_slice(ann.id.as_bytes());
        let mut begun = Vec::new();
        for n in 0..10 {
            let user = ann.bank.user(&format!("{}-{n}", ann.id));
            let (id, options) = user.begin_passkey().await;
            let lie = crate::support::authenticator::RegistrationLie::with_credential_id(&taken);
            let credential = user.device().create_lying(&options, &lie);
            begun.push((user, id, json!({"credential": credential})));
        }
        let answers = at_once(10, |n| {
            let (user, id, proof) = begun[n].clone();
            async move { user.activate(&id, proof).await }
        })
        .await;
        one_wins(&answers, &["credential_invalid"]);
    })
    .await;
}

#[tokio::test]
async fn one_activation_of_an_app_and_of_a_phone() {
    in_rounds(|ann| async move {
        let app = ann.begin_totp().await;
        let answers = race(|_| {
            let (ann, id, proof) = (ann.clone(), app.id.clone(), json!({"code": app.code()}));
            async move { ann.activate(&id, proof).await }
        })
        .await;
        one_wins(&answers, &["factor_not_pending", "code_reused"]);
        let phone = ann.begin_phone("+14155550123").await;
        let answers = race(|_| {
            let (ann, id, proof) = (ann.clone(), phone.id.clone(), json!({"code": phone.code()}));
            async move { ann.activate(&id, proof).await }
        })
        .await;
        one_wins(&answers, &["factor_not_pending", "code_reused", "code_expired"]);
    })
    .await;
}

#[tokio::test]
async fn one_exchange() {
    in_rounds(|ann| async move {
        let app = ann.enrol_totp().await;
        let challenge = ann.challenge(json!({})).await;
        let code = challenge.browser().post(&challenge.path("/verify"), app.now()).await.is(200)["code"].clone();
        let answers = race(|_| {
            let (challenge, body) = (challenge.clone(), json!({"code": code}));
            async move { challenge.exchange(body).await }
        })
        .await;
        one_wins(&answers, &["code_reused"]);
        assert_eq!(sessions(&ann).await, 1);
    })
    .await;
}

/// S-14.
#[tokio::test]
async fn one_consumption() {
    in_rounds(|ann| async move {
        let app = ann.enrol_totp().await;
        for single_use in [true, false] {
            let session = ann.session(&app, json!({"single_use": single_use})).await;
            let question = json!({"token": session["token"], "consume": true});
            let answers = race(|_| {
                let (bank, question) = (ann.bank.clone(), question.clone());
                async move { bank.introspect(question).await }
            })
            .await;
            assert_eq!(answers.iter().filter(|a| a["satisfied"] == true).count(), 1);
            assert!(answers.iter().filter(|a| a["satisfied"] == false).all(|a| a["active"] == false));
        }
    })
    .await;
}

/// A session that is consumed lets nothing through from then on, and of two heirs at once none is left without a parent.
#[tokio::test]
async fn an_end_and_an_inheritance_at_once() {
    in_rounds(|ann| async move {
        let app = ann.enrol_totp().await;
        let session = ann.session(&app, json!({})).await;
        let answers = race(|n| {
            let (ann, token) = (ann.clone(), session["token"].clone());
            async move {
                match n % 10 {
                    0 => ann.bank.post("/v1/sessions/introspect", json!({"token": token, "consume": true})).await,
                    _ => ann.ask(json!({"session_token": token})).await,
                }
            }
        })
        .await;
        assert!(answers.iter().all(Answer::is_success));
        assert_eq!(answers.iter().filter(|a| a["satisfied"] == true).count(), 1);
        ann.ask(json!({"session_token": session["token"]})).await.is(201);
    })
    .await;
}

/// one live set. Confirming says what is so from then on, and says it to all.
#[tokio::test]
async fn one_set_of_recovery_codes_survives() {
    in_rounds(|ann| async move {
        ann.enrol_totp().await;
        let made = at_once(10, |_| {
            let ann = ann.clone();
            async move { ann.bank.post(&ann.path("/recovery-codes"), json!({})).await }
        })
        .await;
        assert!(made.iter().all(|a| a.status == 201 || a.code() == "rate_limited"));
        let mut good = 0;
        for set in made.iter().filter(|a| a.status == 201) {
            let answer = json!({"type": "recovery_code", "code": set["codes"][0]});
            good += usize::from(ann.challenge(json!({})).await.verify(answer).await.is_success());
        }
        assert_eq!(good, 1, "one live set");
        let waiting = ann.bank.post(&ann.path("/recovery-codes"), json!({"require_confirmation": true})).await.is(201);
        let confirmed = race(|_| {
            let ann = ann.clone();
            async move { ann.bank.ask(&ann.path("/recovery-codes/confirm")).await }
        })
        .await;
        assert!(confirmed.iter().all(|a| a.status == 200 && a["status"] == "active" && a["remaining"] == 10));
        let answer = json!({"type": "recovery_code", "code": waiting["codes"][0]});
        ann.challenge(json!({})).await.verify(answer).await.is(200);
    })
    .await;
}

#[tokio::test]
async fn one_cancellation_and_cancel_against_verify() {
    in_rounds(|ann| async move {
        let app = ann.enrol_totp().await;
        let challenge = ann.challenge(json!({})).await;
        let answers = race(|_| {
            let challenge = challenge.clone();
            async move { challenge.cancel().await }
        })
        .await;
        one_wins(&answers, &["challenge_not_pending"]);
        for _ in 0..5 {
            let (challenge, before) = (ann.challenge(json!({})).await, sessions(&ann).await);
            let right = app.answer();
            let answers = at_once(20, |n| {
                let (challenge, right) = (challenge.clone(), right.clone());
                async move { if n % 2 == 0 { challenge.cancel().await } else { challenge.verify(right).await } }
            })
            .await;
            one_wins(&answers, &["challenge_not_pending", "code_reused"]);
            let approved = challenge.status().await == "approved";
            assert_eq!(sessions(&ann).await, before + usize::from(approved));
        }
    })
    .await;
}

#[tokio::test]
async fn one_text_of_many_asked_for() {
    in_rounds(|ann| async move {
        let (world, before) = (ann.bank.world.clone(), ann.bank.world.gateway.asked());
        let phone = ann.begin_phone("+14155550123").await;
        world.wait(30);
        let resend = ann.path(&format!("/factors/{}/resend", phone.id));
        let answers = race(|_| {
            let (bank, resend) = (ann.bank.clone(), resend.clone());
            async move { bank.ask(&resend).await }
        })
        .await;
        one_wins(&answers, &["send_limited"]);
        assert_eq!(world.gateway.asked() - before, 2);
        ann.activate(&phone.id, json!({"code": phone.code()})).await.is(200);
        world.wait(86_400);
        let challenge = ann.challenge(json!({})).await;
        let answers = race(|_| {
            let challenge = challenge.clone();
            async move { challenge.text().await }
        })
        .await;
        one_wins(&answers, &["send_limited"]);
        challenge.verify(phone.answer()).await.is(200);
        // Over many challenges, the number's own limit holds.
        world.wait(86_400);
        let mut challenges = Vec::new();
        for _ in 0..20 {
            challenges.push(ann.challenge(json!({})).await);
        }
        let answers = at_once(20, |n| {
            let challenge = challenges[n].clone();
            async move { challenge.text().await }
        })
        .await;
        assert_eq!(answers.iter().filter(|a| a.is_success()).count(), 3);
        assert!(answers.iter().filter(|a| !a.is_success()).all(|a| a.code() == "send_limited"));
        assert_eq!(world.gateway.asked() - before, 6);
    })
    .await;
}

/// P-17: what failed at once is given back, all of it.
#[tokio::test]
async fn failures_at_once_charge_nothing() {
    in_rounds(|ann| async move {
        let world = ann.bank.world.clone();
        ann.enrol_phone("+14155550123").await;
        world.wait(86_400);
        let mut challenges = Vec::new();
        for _ in 0..20 {
            challenges.push(ann.challenge(json!({})).await);
        }
        world.gateway.is(Mood::Broken);
        let answers = at_once(20, |n| {
            let challenge = challenges[n].clone();
            async move { challenge.text().await }
        })
        .await;
        for answer in &answers {
            assert!(matches!(answer.code(), "delivery_unavailable" | "send_limited"), "{}", answer.body);
        }
        world.gateway.is(Mood::Well);
        for challenge in &challenges[..3] {
            challenge.text().await.is(200);
        }
        challenges[3].text().await.refused(429, "send_limited");
    })
    .await;
}

#[tokio::test]
async fn one_removal_and_one_factor_of_a_name() {
    in_rounds(|ann| async move {
        let app = ann.enrol_totp().await;
        let answers = race(|_| {
            let (ann, id) = (ann.clone(), app.id.clone());
            async move { ann.remove(&id).await }
        })
        .await;
        one_wins(&answers, &["not_found"]);
        let answers = race(|_| {
            let ann = ann.clone();
            async move { ann.begin(json!({"type": "totp", "name": "Mine"})).await }
        })
        .await;
        one_wins(&answers, &["name_taken", "rate_limited"]);
        let free = at_once(8, |_| {
            let ann = ann.clone();
            async move { ann.begin(json!({"type": "webauthn"})).await.is(201)["name"].clone() }
        })
        .await;
        let names: std::collections::HashSet<_> = free.iter().map(text).collect();
        assert_eq!(names.len(), 8, "{names:?}");
    })
    .await;
}

/// a person with two factors cannot lose both at once.
#[tokio::test]
async fn two_removals_at_once_leave_one_factor() {
    in_rounds(|ann| async move {
        for _ in 0..5 {
            let (one, two) = (ann.enrol_totp().await, ann.enrol_totp().await);
            let session = ann.session(&one, json!({})).await;
            let browser = ann.browser(Some(&session["token"])).await;
            let answers = at_once(2, |n| {
                let (browser, path) = (browser.clone(), ann.path(&format!("/factors/{}", [&one.id, &two.id][n])));
                async move { browser.delete(&path).await }
            })
            .await;
            let won = answers.iter().filter(|a| a.is_success()).count();
            assert!(won <= 1 && ann.factors().await.len() == 2 - won, "{won} removed");
            ann.bank.delete(&ann.path("")).await.is(204);
        }
    })
    .await;
}

/// A recovery session's one right to add is spent once, however many enrolments finish together.
#[tokio::test]
async fn a_recovery_session_adds_one_factor_also_at_once() {
    in_rounds(|ann| async move {
        ann.enrol_totp().await;
        let codes = ann.recovery_codes().await;
        let challenge = ann.challenge(json!({})).await;
        let answer = json!({"type": "recovery_code", "code": codes[0]});
        let session = challenge.verify(answer).await.is(200)["session"].clone();
        let browser = ann.browser(Some(&session["token"])).await;
        let mut begun = Vec::new();
        for _ in 0..8 {
            let body = browser.post(&ann.path("/factors"), json!({"type": "totp"})).await.is(201);
            let code = totp(&base32(body["totp"]["secret"].as_str().expect("a secret")), ann.bank.world.now() / 30);
            begun.push((ann.path(&format!("/factors/{}/activate", text(&body["id"]))), json!({"code": code})));
        }
        let answers = at_once(8, |n| {
            let (browser, (path, proof)) = (browser.clone(), begun[n].clone());
            async move { browser.post(&path, proof).await }
        })
        .await;
        one_wins(&answers, &["step_up_required"]);
    })
    .await;
}

/// 3.1, 3.3: a thousand wrong codes over two hundred challenges at once get ten verdicts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_guesses_at_once_get_ten_verdicts() {
    let ann = World::start().await.bank().await.user("ann");
    let app = ann.enrol_totp().await;
    let mut challenges = Vec::new();
    for _ in 0..200 {
        challenges.push(ann.challenge(json!({})).await);
    }
    let answers = at_once(1000, |n| {
        let (challenge, answer) = (challenges[n % 200].clone(), app.miss());
        async move { challenge.verify(answer).await }
    })
    .await;
    let verdicts = answers.iter().filter(|a| a.code() == "code_incorrect").count();
    assert!(verdicts <= 10, "{verdicts}");
    for answer in &answers {
        // On a machine that is busy, some may run out of their time: that is no verdict either.
        let expected =
            ["code_incorrect", "method_paused", "challenge_not_pending", "rate_limited", "store_unavailable"];
        assert!(expected.contains(&answer.code()), "{} {}", answer.status, answer.body);
    }
    for _ in verdicts..10 {
        ann.ask(json!({"answer": app.miss()})).await;
    }
    let challenge = ann.challenge(json!({})).await;
    challenge.verify(app.now()).await.refused(429, "method_paused");
    ann.bank.world.wait(30);
    challenge.verify(app.now()).await.is(200);
}

/// five answers a challenge, also at once.
#[tokio::test]
async fn fifty_wrong_answers_at_once_get_five_verdicts() {
    in_rounds(|ann| async move {
        ann.enrol_totp().await;
        ann.recovery_codes().await;
        let challenge = ann.challenge(json!({})).await;
        let answers = race(|_| {
            let challenge = challenge.clone();
            let wrong = json!({"type": "recovery_code", "code": "0000-0000-0000-0000"});
            async move { challenge.verify(wrong).await }
        })
        .await;
        assert_eq!(answers.iter().filter(|a| a.code() == "code_incorrect").count(), 5);
        assert!(
            answers.iter().all(|a| matches!(a.code(), "code_incorrect" | "challenge_not_pending" | "rate_limited"))
        );
        assert_eq!(challenge.status().await, "denied");
    })
    .await;
}

/// kill -9 loses no guess, and a passkey passes on.
#[tokio::test]
async fn a_pause_survives_the_kill_of_the_process() {
    let mut place = Place::new().await;
    let clock = place.scratch.folder().join("clock");
    place.set("COUNTERSIGN_DEVELOPMENT", "true");
    place.set("COUNTERSIGN_CLOCK_FILE", clock.to_str().expect("UTF-8"));
    let serve = place.serve().await;
    let bank = place.bank();
    let post = |path: String, body: Value| {
        let bank = bank.clone();
        async move { bank.post(&path, body).await }
    };
    let seconds = || countersign::clock::Clock::now(&countersign::clock::FileClock::new(clock.clone())).seconds();
    let app = post("/v1/users/ann/factors".into(), json!({"type": "totp"})).await.1;
    let secret = base32(app["totp"]["secret"].as_str().expect("a secret"));
    let path = format!("/v1/users/ann/factors/{}/activate", text(&app["id"]));
    assert_eq!(post(path, json!({"code": totp(&secret, seconds() / 30)})).await.0, 200);
    let begun = post("/v1/users/ann/factors".into(), json!({"type": "webauthn"})).await.1;
    let mut device = Authenticator::new("https://bank.example");
    let credential = device.create(&begun["webauthn"]["creation_options"]).expect("no objection");
    let path = format!("/v1/users/ann/factors/{}/activate", text(&begun["id"]));
    assert_eq!(post(path, json!({"credential": credential})).await.0, 200);
    let mut challenges = Vec::new();
    for _ in 0..10 {
        challenges.push(text(&post("/v1/challenges".into(), json!({"user_id": "ann"})).await.1["id"]));
    }
    let verify = |challenge: &str, answer: Value| post(format!("/v1/challenges/{challenge}/verify"), answer);
    let wrong = json!({"type": "totp", "code": totp(&secret, seconds() / 30 + 1000)});
    let guesses: Vec<_> = (0..COPIES).map(|n| tokio::spawn(verify(&challenges[n % 10], wrong.clone()))).collect();
    let (mut verdicts, mut others) = (0, Vec::new());
    for guess in guesses {
        let (status, body) = guess.await.expect("no panic");
        verdicts += usize::from(status == 422);
        others.extend((status != 422).then(|| format!("{status} {}", body["code"])));
    }
    assert_eq!(verdicts, 10, "{others:?}");
    // A pause that is long enough for another start.
    let mut ahead = 0;
    let wait = loop {
        let (status, body) = post("/v1/challenges".into(), json!({"user_id": "ann", "answer": wrong})).await;
        let Some(wait) = body["retry_after"].as_i64() else {
            assert_eq!(status, 422, "{body}");
            continue;
        };
        if wait > 90 {
            break wait;
        }
        ahead += wait;
        std::fs::write(&clock, ahead.to_string()).expect("the clock moves");
    };
    serve.kill();

    let serve = place.serve().await;
    let (status, problem) =
        verify(&challenges[9], json!({"type": "totp", "code": totp(&secret, seconds() / 30)})).await;
    assert_eq!((status, &problem["code"]), (429, &json!("method_paused")), "{problem}");
    let challenge = text(&post("/v1/challenges".into(), json!({"user_id": "ann"})).await.1["id"]);
    let options = post(format!("/v1/challenges/{challenge}/prepare"), json!({"type": "webauthn"})).await.1;
    let credential = device.get(&options["webauthn"]["request_options"]).expect("no objection");
    let (status, proven) = verify(&challenge, json!({"type": "webauthn", "credential": credential})).await;
    assert_eq!((status, &proven["session"]["acr"]), (200, &json!("phr")));
    std::fs::write(&clock, (ahead + wait + 1).to_string()).expect("the clock moves");
    let challenge = text(&post("/v1/challenges".into(), json!({"user_id": "ann"})).await.1["id"]);
    let (status, answer) = verify(&challenge, json!({"type": "totp", "code": totp(&secret, seconds() / 30)})).await;
    assert_eq!(status, 200, "{answer}");
    drop(serve);
}
