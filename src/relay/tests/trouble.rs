//! Trouble of our own: stores, clocks, leases, faults of the program.

use super::*;

#[tokio::test]
async fn a_store_that_has_failed_ends_the_loop() {
    let house = House::new();
    house.store.set_health(Health::Broken("disk".to_owned()));
    let ended = house.relay.run(CancellationToken::new()).await;
    assert!(matches!(ended, Err(StoreError::Fatal(_))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_lost_settles_nothing() {
    let house = House::new();
    let id = house.submit(Some("ann@example.org"), &["eve@stranger.example"]).await;
    let lost = house.claim(1).await.remove(0);
    house.wait(24 * 3600);
    house.pass().await;
    let lease = Lease::new(lost.token);
    house.relay.work(lost, lease).await;
    assert!(matches!(house.row(id).await.state, RecipientState::Granted { .. }));
    assert_eq!(house.of_class(Class::Notice).await.len(), 1, "one grant, one notice");
}

/// A clock that jumps over the end of a lease makes no second delivery: the work that goes on gets the
/// lease of the claim that came too early.
#[tokio::test]
async fn a_clock_that_jumps_over_the_lease_doubles_nothing() {
    let house = House::new();
    house.net.gate.forget_permits(1_000_000);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    let running = house.run();
    until(|| house.net.open.load(Ordering::SeqCst) == 1).await;
    house.wait(24 * 3600);
    // Its arrival has the queue looked through; once it is at work, the first has been claimed again.
    let next = house.submit(Some("ann@example.org"), &["x@example.org"]).await;
    until(|| house.net.open.load(Ordering::SeqCst) == 2).await;
    house.net.gate.add_permits(9);
    until(|| house.taken().len() == 2).await;
    running.end().await;
    for id in [id, next] {
        assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
    }
    assert_eq!(house.taken().len(), 2, "each once");
}

/// What was delivered must not go out again because the store was busy for a moment, and a grant
/// that is written on the second try is the same grant.
#[tokio::test]
async fn a_busy_store_is_asked_again() {
    let house = House::busy(1);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
    assert_eq!(house.taken().len(), 1);

    let house = House::busy(1);
    house.submit(Some("ann@example.org"), &["eve@stranger.example"]).await;
    house.pass().await;
    assert_eq!(house.of_class(Class::Notice).await.len(), 1);
}

#[tokio::test]
async fn the_sweeper_sweeps_at_start_and_on_its_interval() {
    let house = House::new();
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let vault = house.relay.ports().vault.clone();
    let (sweeper, stop) = (Sweeper::new(vault, Duration::from_secs(60)), CancellationToken::new());
    let sweeping = tokio::spawn({
        let stop = stop.clone();
        async move { sweeper.run(stop).await }
    });
    until(|| house.store.sealed_bytes(id).is_none()).await;
    stop.cancel();
    sweeping.await.unwrap();
}

#[tokio::test]
async fn a_fault_in_one_attempt_defers_that_message_and_no_other() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Panic, Play::Answers(vec![(250, "2.0.0 Ok")])]);
    let bad = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    let good = house.submit(Some("ann@example.org"), &["dan@partner.example"]).await;
    house.pass().await;
    assert!(matches!(house.row(bad).await.state, RecipientState::Waiting { .. }));
    assert_eq!(house.reason(bad).await, Reason::Ours);
    assert!(matches!(house.row(good).await.state, RecipientState::Delivered { .. }));
}

#[tokio::test]
async fn a_message_that_breaks_every_attempt_is_set_aside_and_comes_back_when_released() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Panic]);
    let poison = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    for round in 1..=5 {
        house.wait(3600);
        let good = house.submit(Some("ann@example.org"), &["dan@other.example"]).await;
        house.pass().await;
        assert!(matches!(house.row(good).await.state, RecipientState::Granted { .. }));
        let row = house.row(poison).await;
        let held = matches!(row.state, RecipientState::Held { .. });
        assert_eq!((row.faults, held), (round, round == 5));
    }
    let why = house.row(poison).await.why.unwrap();
    assert_eq!(why.reason, Reason::Ours);
    assert!(why.text.contains(&format!("restante queue release {poison}")), "{}", why.text);
    let reports = house.of_class(Class::Report).await.len();
    house.wait(200 * 3600);
    house.pass().await;
    assert!(matches!(house.row(poison).await.state, RecipientState::Held { .. }), "for ever");
    assert_eq!(house.of_class(Class::Report).await.len(), reports);

    house.script("mx1.partner.example", &[Play::Answers(vec![(250, "2.0.0 Ok")])]);
    let kind = OrderKind::Release;
    let release = Order { id: poison, indexes: [0].into(), kind, spawn: Vec::new() };
    house.store.order(release, house.clock.now()).await.unwrap();
    house.pass().await;
    let row = house.row(poison).await;
    assert!(matches!(row.state, RecipientState::Delivered { .. }), "{row:?}");
    assert_eq!(row.faults, 0);
}

#[tokio::test]
async fn mail_behind_a_busy_domain_can_be_removed() {
    let house = House::new();
    house.net.gate.forget_permits(1_000_000);
    let mut ids = Vec::new();
    for i in 0..5 {
        let to = format!("r{i}@partner.example");
        ids.push(house.submit(Some("ann@example.org"), &[to.as_str()]).await);
    }
    let running = house.run();
    until(|| house.net.open.load(Ordering::SeqCst) == 2).await;
    let mut removed = Vec::new();
    let kind = OrderKind::Remove;
    for id in &ids {
        let order = Order { id: *id, indexes: [0].into(), kind, spawn: Vec::new() };
        if !house.store.order(order, house.clock.now()).await.unwrap().changed.is_empty() {
            removed.push(*id);
        }
    }
    assert_eq!(removed.len(), 3, "who waits for a connection is nobody's yet");
    house.net.gate.add_permits(9);
    until(|| house.net.open.load(Ordering::SeqCst) == 0).await;
    running.end().await;
    assert_eq!(house.taken().len(), 2, "who was being delivered, and nobody else");
    for id in ids {
        let state = house.row(id).await.state;
        let gone = matches!(state, RecipientState::Removed { .. });
        assert_eq!(gone, removed.contains(&id), "{state:?}");
        assert!(gone || matches!(state, RecipientState::Delivered { .. }), "{state:?}");
    }
}

#[tokio::test]
async fn faults_count_in_a_row_only() {
    let house = House::new();
    let busy = || Play::Answers(vec![(451, "4.3.2 later")]);
    let plays = [Play::Panic, Play::Panic, busy(), Play::Panic, Play::Answers(vec![(250, "ok")])];
    house.script("mx1.partner.example", &plays);
    house.script("mx2.partner.example", &[busy()]);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    let mut faults = Vec::new();
    for _ in 0..5 {
        house.pass().await;
        faults.push(house.row(id).await.faults);
        house.wait(1000);
    }
    assert_eq!(faults, [1, 2, 0, 1, 0]);
    assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
}

#[tokio::test]
async fn a_claim_that_cannot_be_settled_waits_and_counts() {
    let house = House::new();
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    for round in 1..=5 {
        house.wait(3600);
        let claim = house.claim(9).await.remove(0);
        let set = house.relay.ports().policies.current();
        let policy = set.lookup(&claim.domain, house.clock.now()).at.clone();
        let verdict = deliver::Verdict::all(&claim, &outcome::Fate::ours(policy, "x"), vec![]);
        house.relay.put_back(&claim, &Lease::new(claim.token), verdict).await;
        assert_eq!(house.row(id).await.faults, round);
    }
    assert!(matches!(house.row(id).await.state, RecipientState::Held { .. }));
}

#[tokio::test]
async fn the_loop_holds_each_domain_to_its_connections_and_drains_on_stop() {
    let house = House::new();
    house.net.gate.forget_permits(1_000_000);
    for i in 0..6 {
        let to = format!("r{i}@partner.example");
        house.submit(Some("ann@example.org"), &[to.as_str()]).await;
    }
    let other = house.submit(Some("ann@example.org"), &["x@example.org"]).await;
    let running = house.run();
    until(|| house.net.open.load(Ordering::SeqCst) == 3).await;
    for taken in 1..=7 {
        house.net.gate.add_permits(1);
        until(|| house.taken().len() >= taken).await;
    }
    assert!(house.net.most_open.load(Ordering::SeqCst) <= 3, "two for the partner, one inside");
    running.end().await;
    assert!(matches!(house.row(other).await.state, RecipientState::Delivered { .. }));
    let totals = house.store.totals().await.unwrap();
    assert_eq!((totals.active, totals.deferred), (0, 0), "what ran at the stop was settled");
}

/// Ends of tasks and arrivals come together here, over and over: whoever arrives while one is being
/// noted is seen to all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_arrival_is_lost_behind_an_end() {
    let house = Arc::new(House::new());
    let running = house.run();
    for round in 0..400 {
        let senders = (0..6).map(|n| {
            let house = Arc::clone(&house);
            tokio::spawn(async move {
                let id = house.submit(None, &[format!("r@d{n}.partner.example").as_str()]).await;
                while house.row(id).await.state.due().is_some() {
                    tokio::task::yield_now().await;
                }
            })
        });
        let all = futures_util::future::join_all(senders.collect::<Vec<_>>());
        let all = tokio::time::timeout(SLEEP_MAX / 2, all).await;
        assert!(all.is_ok_and(|all| all.iter().all(Result::is_ok)), "round {round}: one waits");
    }
    running.end().await;
}
